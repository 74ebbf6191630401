"""Labelled answers of the demo world for `langchain-rain rubric check`, as JSON lines.

Requests are of combinations unseen in training. Half of the cases are good and half are bad by the oracle, and half of
each are whole answers and half cut off anywhere; the label is that of the text as it stands.

    python benchmarks/demo_rubric_cases.py --rubric harmlessness --num 300 --seed 0 --out cases.jsonl
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_rain.evaluation import demo_world as world
from langchain_rain.evaluation.demo_text import HAZARD_TAILS
from langchain_rain.evaluation.labelled import PERCENTS, beginning_of
from langchain_rain.files import write_whole

Oracle = Callable[[world.Request, str], bool]

ORACLES: dict[str, Oracle] = {
    "harmlessness": world.is_harmless,
    "politeness": lambda _, answer: world.is_polite(answer),
    "contact_details": lambda _, answer: world.keeps_contacts_private(answer),
}

KIND_WEIGHTS = {
    "harmlessness": (32, 48, 10, 10),
    "politeness": (20, 30, 30, 20),
    "contact_details": (10, 20, 10, 60),
}
"""How often each of `demo_world.KINDS` is drawn, so that good and bad answers are about as frequent as each other."""

HAZARD_SHARE = 0.15
"""Of the answers to plain and contact requests, those that end dangerously: by themselves none does."""


def main() -> None:
    """Writes the cases."""
    arguments = _parse_arguments()
    cases = make_cases(arguments.rubric, arguments.num, arguments.seed)
    write_whole(arguments.out, "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases))


def make_cases(rubric: str, num_cases: int, seed: int) -> list[dict[str, Any]]:
    """Distinct cases: good and bad in turn, and in turn whole and cut off."""
    rng = random.Random(f"{rubric}, {seed}")  # of each rubric its own requests
    cases: dict[tuple[str, str], dict[str, Any]] = {}
    while len(cases) < num_cases:
        number = len(cases)
        case = _draw_case(rubric, rng, is_good=number % 2 == 0, is_finished=number // 2 % 2 == 0)
        cases[case["prompt"], case["response"]] = case
    return list(cases.values())


def _draw_case(rubric: str, rng: random.Random, *, is_good: bool, is_finished: bool) -> dict[str, Any]:
    """Draws answers until one is as it should be."""
    oracle = ORACLES[rubric]
    while True:
        request, answer = _draw_answer(rubric, rng)
        if not is_finished:
            answer = answer[: rng.randint(1, len(answer) - 1)].rstrip()
        if oracle(request, answer) == is_good:
            break
    return {
        "prompt": request.text,
        "response": answer,
        "is_good": is_good,
        "is_finished": is_finished,
        "is_good_by_prefix": [oracle(request, beginning_of(answer, percent)) for percent in PERCENTS],
    }


def _draw_answer(rubric: str, rng: random.Random) -> tuple[world.Request, str]:
    """A request, and an answer as the writer could write it, but for the shares of what is good and bad in it."""
    (kind,) = rng.choices(world.KINDS, KIND_WEIGHTS[rubric])
    request = world.sample_request(rng, "test", kind)
    manners: tuple[world.Manner, ...] = ("neutral", "polite", "rude")
    (manner,) = rng.choices(manners, (30, 20, 50) if rubric == "politeness" else (50, 30, 20))
    if kind == "late":
        count = world.num_steps(request)
        dangerous = [rng.randint(1, count)] if rng.random() < 0.5 else []
        return request, world.sample_answer(request, rng, manner=manner, dangerous_steps=dangerous)
    answer = world.sample_answer(request, rng, manner=manner, is_refusal=rng.random() < 0.5)
    if kind in ("plain", "contact") and rng.random() < HAZARD_SHARE:
        answer += f" Rub it with {rng.choice(HAZARD_TAILS).replace('*', '')}."
    return request, answer


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rubric", choices=sorted(ORACLES), required=True)
    parser.add_argument("--num", type=int, default=300, help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the file for the cases")
    arguments = parser.parse_args()
    if arguments.num < 1:
        parser.error(f"--num: at least 1 is allowed, given {arguments.num}")
    return arguments


if __name__ == "__main__":
    main()
