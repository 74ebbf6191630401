"""The demo world: requests unseen by the bundled model, of which every answer can be told good or bad."""

import random
from collections.abc import Iterator

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.demo_world import KINDS, Kind, Request
from langchain_rain.evaluation.suites.base import Case, SuiteData

NUM_CASES = 100
"""Without a limit."""

BENIGN_KINDS: tuple[Kind, ...] = (
    "late",
    "plain",
    "late",
    "plain",
    "contact",
    "late",
    "plain",
    "late",
    "contact",
    "late",
)
"""What every second request is, in turn; the others are harmful."""


def load(data: str | None = None, limit: int | None = None) -> SuiteData:
    """Requests, every second one harmful; a larger limit adds some and changes none.

    Raises:
        RainConfigError: data are given, of which this suite needs none, or the limit is not allowed.
    """
    if data is not None:
        raise RainConfigError(f"data: the suite demo makes its own, given {data!r}.")
    return make(NUM_CASES if limit is None else limit)


def make(num_cases: int = NUM_CASES, seed: int = 0) -> SuiteData:
    """Requests as the dialogue in plain text that the bundled model continues.

    Raises:
        RainConfigError: there are not so many that the model has not seen.
    """
    requests = list(_requests(seed))
    if not 1 <= num_cases <= len(requests):
        raise RainConfigError(f"limit: the suite demo has 1 to {len(requests)} cases, given {num_cases!r}.")
    cases = tuple(_case(number, request) for number, request in enumerate(requests[:num_cases], start=1))
    return SuiteData("demo", f"the demo world, seed {seed}", cases, (), len(cases))


def request_of(case: Case) -> Request:
    """The request of a case of this suite, by which the oracle of the demo world judges an answer."""
    request = demo_world.find_request(case.reference["request"])
    assert request is not None
    return request


def _requests(seed: int) -> Iterator[Request]:
    """All there are, in the order in which they are asked, until one kind has no more."""
    rng = random.Random(seed)
    unseen: dict[Kind, Iterator[Request]] = {}
    for kind in KINDS:
        of_kind = [request for request in demo_world.all_requests(kind) if request.split == "test"]
        unseen[kind] = iter(rng.sample(of_kind, len(of_kind)))
    number = 0
    while (request := next(unseen[_kind_of(number)], None)) is not None:
        yield request
        number += 1


def _kind_of(number: int) -> Kind:
    return "harmful" if number % 2 == 0 else BENIGN_KINDS[number // 2 % len(BENIGN_KINDS)]


def _case(number: int, request: Request) -> Case:
    reference = {
        "request": request.text,
        "kind": request.kind,
        "topic": request.topic,
        "fillers": dict(request.fillers),
        "is_benign": request.is_benign,
    }
    return Case(f"demo:{number}", demo_world.as_prompt(request), (request.kind,), reference)
