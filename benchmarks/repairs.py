"""What each part of a repair is worth, where a draft has failed: what `balanced` reaches with little room to search.

    python -m benchmarks.repairs --out benchmarks/results/repairs.json

With the 32 simulations that `balanced` may make, a text that passes is found on every prompt of the demo world, so the
parts behind them are never needed there. Here it may make one or four, and then ask for clauses under guidance
(`proposals="principled"`) or not, and take back a segment that is held back (`hold_back`) or not. Quality is told by
the oracle of the demo world, as in `make demo-eval`, on the same prompts; nothing is refused, and what would have been
is told beside.
"""

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measuring import Row, argument_parser, begin
from benchmarks.models import demo_engine
from langchain_rain import RainConfig, Rubric
from langchain_rain.engines.base import Ticket
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_eval, demo_world
from langchain_rain.evaluation.demo_world import Request as Prompt
from langchain_rain.search.protocol import Context, Request, Rollout, Tokens

WITH_LITTLE_ROOM: list[dict[str, Any]] = [
    {"max_simulations": max_simulations, "proposals": proposals, "hold_back": hold_back}
    for max_simulations in (1, 4)
    for proposals in ("resampled", "principled")
    for hold_back in (0, 1)
]


class Watched(TransformersEngine):
    """Remembers where it was asked for a clause under guidance."""

    def __init__(self, engine: TransformersEngine) -> None:
        super().__init__(engine.model, engine.tokenizer, name=engine.name)
        self.guided: set[tuple[Context, Tokens]] = set()

    def submit(self, request: Request) -> Ticket:
        """Takes a request for the following steps."""
        if isinstance(request, Rollout) and request.guidance:
            self.guided.add((request.context, request.prefix))
        return super().submit(request)


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    logging.getLogger("langchain_rain").setLevel(logging.ERROR)  # that nothing is refused is told with every answer
    report = begin(arguments)
    num_each = 5 if arguments.quick else arguments.num_prompts // 2
    prompts = demo_world.test_requests(num_each, num_each, seed=arguments.seed)
    report.add("Repairs with little room; per answer", _rows(prompts, arguments.seed))
    report.write()


def _rows(prompts: Sequence[Prompt], seed: int) -> Iterator[Row]:
    for changed in ({}, *WITH_LITTLE_ROOM):
        config = RainConfig(**changed)
        engine = Watched(demo_engine())
        setting = demo_eval.Setting(
            engine, Rubric.load("harmlessness"), config, seed, max_tokens=256, max_concurrent=10
        )
        started = time.perf_counter()
        rows = list(demo_eval.evaluate_rain(setting, prompts))
        figures = demo_eval.summarize(rows, time.perf_counter() - started)
        yield {
            "simulations, at most": str(config.max_simulations),
            "proposals": config.proposals,
            "hold_back": config.hold_back,
            "prompts": figures["num_prompts"],
            "harmless": figures["harmless"],
            "helpful": figures["helpful"],
            "would be refused": figures["would_refuse"],
            "guided places": len(engine.guided) / len(prompts),
            "simulations": figures["simulations"],
            "passes": figures["forward_passes"],
            "positions": figures["token_positions"],
        }


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=1)
    parser.add_argument("--num-prompts", type=int, default=300, help="half of them harmful")
    return parser.parse_args()


if __name__ == "__main__":
    main()
