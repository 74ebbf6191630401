"""What the cache saves: the paper's search against the same without any, every token by a pass over all before it.

    python -m benchmarks.against_naive --out benchmarks/results/against_naive.json

A long prompt, and a rubric that shows worked examples. The model is a small Llama of random weights in float64, so that
both sides, with the same seed, do the same simulations; what differs is an error. Token positions and forward passes do
not depend on the size of the model; nor would the number that is saved be smaller with longer ones.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.measuring import Row, Run, argument_parser, begin, timed
from benchmarks.models import demo_prompts, random_engine
from benchmarks.sides import counted_passes, new_engine, run_of
from langchain_rain import RainConfig, Rubric, drivers
from langchain_rain.drivers import Job
from langchain_rain.engines.base import Engine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rubric import Example
from langchain_rain.search import paper
from langchain_rain.search.protocol import Committed, Event, Tokens, Transcript
from langchain_rain.search.state import Search
from tests.naive_engine import NaiveEngine

MIN_RATIO = 30.0
"""How many times fewer token positions there must be."""


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides answer."""

    prompt: str
    rubric: Rubric
    config: RainConfig
    seed: int
    max_tokens: int

    def asking_ahead(self, lookahead: int) -> "Task":
        """The same with another lookahead."""
        return replace(self, config=self.config.model_copy(update={"lookahead": lookahead}))

    def run(self, engine: Engine) -> tuple[Run, list[Event]]:
        """Answers it, judging itself; what has happened is told too."""
        context = engine.open(self.prompt, max_tokens=self.max_tokens)
        judge = RubricJudge(self.rubric, context, template="fenced", scoring=self.config.scoring)
        search = Search(context, judge, self.config.to_search_config(), self.seed, transcript=self.prompt)
        happened, seconds = timed(
            lambda: list(drivers.stream(Job(paper.generate(search), {context: engine}))), torch.device("cpu")
        )
        *events, outcome = happened
        assert isinstance(outcome, drivers.Outcome)
        return run_of(outcome, seconds), [each for each in events if not isinstance(each, drivers.Outcome)]


def main() -> None:
    """Measures and prints."""
    arguments = _parse_arguments()
    report = begin(arguments)
    engine = random_engine("0.2M", seed=arguments.seed, dtype=torch.float64)
    prompt = long_prompt(engine, arguments.prompt_tokens, arguments.seed)
    rubric = long_rubric(engine, arguments.rubric_tokens, arguments.seed)
    max_tokens = 8 if arguments.quick else arguments.max_tokens
    task = Task(prompt, rubric, RainConfig.preset("paper"), arguments.seed, max_tokens)
    rows = _compared(engine, task)
    report.add("`paper` against an engine without a cache; per simulation", rows)
    report.write()


def _compared(engine: TransformersEngine, task: Task) -> Iterator[Row]:
    """The engine without a cache is asked nothing ahead: it would only do more."""
    naive = NaiveEngine(engine.model, engine.tokenizer)
    with counted_passes(engine.model) as shapes:
        theirs, naive_events = task.asking_ahead(0).run(naive)
    for lookahead in (0, task.config.lookahead):
        ours, events = task.asking_ahead(lookahead).run(new_engine(engine))
        if [_what(each) for each in events] != [_what(each) for each in naive_events]:
            raise SystemExit("The simulations differ, so there is nothing to compare.")
        count = ours.num_simulations
        yield {
            "lookahead": str(lookahead),
            "prompt tokens": len(engine.tokenizer(task.prompt).input_ids),
            "rubric tokens": question_length(engine, task.rubric),
            "simulations": count,
            "positions": ours.token_positions / count,
            "naive's positions": naive.num_positions / count,
            "times fewer positions": naive.num_positions / ours.token_positions,
            "at least": MIN_RATIO,
            "passes": ours.forward_passes / count,
            "naive's passes": len(shapes) / count,
            "times fewer passes": len(shapes) / ours.forward_passes,
            "times faster": theirs.seconds / ours.seconds,
        }


def _what(event: Event) -> tuple[Tokens, str]:
    """What has happened, without figures that are rounded."""
    if isinstance(event, Committed):
        return event.token_set.tokens, ""
    return event.prefix, event.draft


def long_prompt(engine: TransformersEngine, num_tokens: int, seed: int) -> str:
    """A conversation of about so many tokens."""
    rng, turns = random.Random(seed), ""
    (last,) = demo_prompts(0, 1, seed)
    while len(engine.tokenizer(turns + last).input_ids) < num_tokens:
        request = demo_world.sample_request(rng)
        turns += f"{demo_world.as_prompt(request)} {demo_world.sample_answer(request, rng)}\n\n"
    return turns + last


def long_rubric(engine: TransformersEngine, num_tokens: int, seed: int) -> Rubric:
    """Harmlessness, with as many worked examples shown as make its question about so long."""
    rng, rubric = random.Random(seed), Rubric.load("harmlessness")
    shown = tuple(each.model_copy(update={"shows_examples": True}) for each in rubric.criteria)
    examples: list[Example] = []
    while True:
        request = demo_world.sample_request(rng)
        response = demo_world.sample_answer(request, rng)
        is_good = demo_world.is_harmless(request, response)
        name = rubric.criteria[0].name
        examples.append(Example(criterion=name, prompt=request.text, response=response, is_good=is_good))
        longer = Rubric(name="long", criteria=shown, examples=tuple(examples))
        if question_length(engine, longer) >= num_tokens:
            return longer


def question_length(engine: TransformersEngine, rubric: Rubric) -> int:
    """The tokens of a question about an empty transcript."""
    context = engine.open("?", max_tokens=1)
    judge = RubricJudge(rubric, context, template="fenced")
    first, *_ = judge.requests_about(rubric.criteria[0], Transcript("", ""))
    engine.channel.close(context)
    _, tokens = engine.shown_to_model(first)
    return len(tokens)


def _parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, repetitions=1)
    parser.add_argument("--prompt-tokens", type=int, default=400)
    parser.add_argument("--rubric-tokens", type=int, default=1250)
    parser.add_argument("--max-tokens", type=int, default=24, help="of the answer")
    return parser.parse_args()


if __name__ == "__main__":
    main()
