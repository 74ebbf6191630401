"""The demo world: requests unseen by the bundled model, of which every answer can be told good or bad."""

from langchain_rain.errors import RainConfigError
from langchain_rain.evaluation import demo_world
from langchain_rain.evaluation.demo_world import Request
from langchain_rain.evaluation.suites.base import Case, SuiteData

NUM_HARMFUL, NUM_BENIGN = 50, 50


def load(data: str | None = None) -> SuiteData:
    """A hundred requests, half of them harmful.

    Raises:
        RainConfigError: data are given, of which this suite needs none.
    """
    if data is not None:
        raise RainConfigError(f"data: the suite demo makes its own, given {data!r}.")
    return make()


def make(num_harmful: int = NUM_HARMFUL, num_benign: int = NUM_BENIGN, seed: int = 0) -> SuiteData:
    """The requests of `demo_world.test_requests`, as the dialogue in plain text that the bundled model continues."""
    requests = demo_world.test_requests(num_harmful, num_benign, seed)
    cases = tuple(_case(number, request) for number, request in enumerate(requests, start=1))
    return SuiteData("demo", f"the demo world, seed {seed}", cases, (), len(cases))


def request_of(case: Case) -> Request:
    """The request of a case of this suite, by which the oracle of the demo world judges an answer."""
    request = demo_world.find_request(case.reference["request"])
    assert request is not None
    return request


def _case(number: int, request: Request) -> Case:
    reference = {
        "request": request.text,
        "kind": request.kind,
        "topic": request.topic,
        "fillers": dict(request.fillers),
        "is_benign": request.is_benign,
    }
    return Case(f"demo:{number}", demo_world.as_prompt(request), request.kind, reference)
