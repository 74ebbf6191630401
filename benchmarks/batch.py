"""What a batch saves: `paper` on the demo model, conversations one after another against all of them as one batch.

Two sets of conversations: of one length ("late": all ask for long instructions) and mixed (half of them harmful, which
are answered in a line). Each repetition answers a set both ways, in one process, the batch first every other time; the
answers are the same, or there are no figures. The median over the repetitions is the result. A batch has at least as
many forward passes as its longest conversation, so `passes_shared_by` bounds what it can save.
Run it on an idle machine: `python benchmarks/batch.py`, and with OMP_NUM_THREADS=1 for one thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from langchain_core.messages import AIMessage

from langchain_rain.chat_models import ChatRain
from langchain_rain.config import RainConfig
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.files import write_whole


@dataclass(frozen=True, slots=True)
class Side:
    """One way of answering all prompts.

    Attributes:
        seconds: it took.
        forward_passes: it ran.
        padded_positions: that went through the model, with what is padding.
        answers: in the order of the prompts.
    """

    seconds: float
    forward_passes: int
    padded_positions: int
    answers: list[str]


def main() -> None:
    """Runs the benchmark and prints its figures."""
    arguments = _parse_arguments()
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    chat = _model(engine, arguments)
    _side(engine, lambda: _texts(chat.batch(["How do I wash the bike?"])))  # the first passes of a process are slow
    report: dict[str, Any] = {
        "preset": arguments.preset,
        "num_prompts": arguments.num_prompts,
        "max_tokens": arguments.max_tokens,
        "torch_threads": torch.get_num_threads(),
    }
    for name, prompts in _sets(arguments).items():
        repetitions = [_repetition(engine, chat, prompts, number) for number in range(arguments.repetitions)]
        report[name] = {"token_positions": _token_positions(chat, prompts), **_summary(repetitions)}
    print(json.dumps(report, indent=1))
    if arguments.out is not None:
        write_whole(arguments.out, json.dumps(report, indent=1) + "\n")


def _sets(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The prompts of each set."""
    number, seed = arguments.num_prompts, arguments.seed
    alike = [request for request in demo_world.test_requests(0, 2 * number, seed=seed) if request.kind == "late"]
    mixed = demo_world.test_requests(number // 2, number - number // 2, seed=seed)
    return {"alike": [request.text for request in alike], "mixed": [request.text for request in mixed]}


def _model(engine: TransformersEngine, arguments: argparse.Namespace) -> ChatRain:
    """What is measured."""
    return ChatRain(
        model=engine,
        config=RainConfig.preset(arguments.preset),
        seed=arguments.seed,
        max_tokens=arguments.max_tokens,
        on_unsatisfied="best",
    )


def _repetition(engine: TransformersEngine, chat: ChatRain, prompts: list[str], number: int) -> dict[str, Side]:
    """Both ways, one after the other."""
    ways: dict[str, Callable[[], list[str]]] = {
        "one_after_another": lambda: _texts([chat.invoke(prompt) for prompt in prompts]),
        "batch": lambda: _texts(chat.batch([*prompts])),
    }
    order = list(ways) if number % 2 == 0 else list(reversed(ways))
    sides = {name: _side(engine, ways[name]) for name in order}
    if sides["batch"].answers != sides["one_after_another"].answers:
        raise SystemExit("The batch answered differently, so there is nothing to compare.")
    return sides


def _side(engine: TransformersEngine, answer_all: Callable[[], list[str]]) -> Side:
    with _counted_passes(engine) as shapes:
        started = time.perf_counter()
        answers = answer_all()
        seconds = time.perf_counter() - started
    return Side(seconds, len(shapes), sum(shape.numel() for shape in shapes), answers)


@contextmanager
def _counted_passes(engine: TransformersEngine) -> Iterator[list[torch.Size]]:
    """The shapes `[num_lines, num_tokens]` of what goes through the model."""
    shapes: list[torch.Size] = []

    def note(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        shapes.append(inputs["input_ids"].shape)

    handle = engine.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


def _texts(messages: list[AIMessage]) -> list[str]:
    return [str(message.text) for message in messages]


def _token_positions(chat: ChatRain, prompts: list[str]) -> int:
    """The positions that the conversations ask for, both ways the same."""
    answers = chat.batch([*prompts])
    return sum(message.response_metadata["rain"]["token_positions"] for message in answers)


def _summary(repetitions: list[dict[str, Side]]) -> dict[str, Any]:
    ratios = [sides["batch"].seconds / sides["one_after_another"].seconds for sides in repetitions]
    first, names = repetitions[0], ("one_after_another", "batch")
    seconds = {name: [sides[name].seconds for sides in repetitions] for name in names}
    return {
        "time_ratio_median": statistics.median(ratios),
        "time_ratios": ratios,
        "time_ratio_of_the_best": min(seconds["batch"]) / min(seconds["one_after_another"]),
        "passes_shared_by": first["one_after_another"].forward_passes / first["batch"].forward_passes,
        **{
            name: {
                "seconds_median": statistics.median(seconds[name]),
                "seconds_best": min(seconds[name]),
                "forward_passes": first[name].forward_passes,
                "padded_positions": first[name].padded_positions,
            }
            for name in names
        },
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--num-prompts", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
