"""What RainMiddleware is told wrongly is one clear error, with the value and what is allowed, before anything runs."""

from typing import Any

import pytest

from langchain_rain import RainConfigError, RubricError, YesNoCriterion
from langchain_rain.middleware import RainMiddleware
from langchain_rain.rubrics import Rubric
from tests.agents.test_rewinding import OBEYED, Naive
from tests.agents.worlds import World, calling, rain
from tests.fake_chat_models import FakeChat
from tests.tiny_models import UNTRIED

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rubirc": "harmlessness"}, r"RainMiddleware takes config, .*rubric, .*; given rubirc"),
    ({"tool_rubrics": UNTRIED}, r"RainMiddleware takes .*tool_rubric.*; given tool_rubrics"),
    ({"loaded": None}, "given loaded"),
    ({"model": "demo"}, "model: that of the agent is guarded; give none, given 'demo'"),
    ({"max_rewind_steps": -1}, "max_rewind_steps: a whole number from 0 on is allowed, given -1"),
    ({"max_rewind_steps": True}, "max_rewind_steps: a whole number from 0 on is allowed, given True"),
    ({"max_rewind_steps": "2"}, "max_rewind_steps: a whole number from 0 on is allowed, given '2'"),
    ({"max_rewind_steps": 1.0}, "max_rewind_steps: a whole number from 0 on is allowed, given 1.0"),
    ({"max_rewind_steps": None}, "max_rewind_steps: a whole number from 0 on is allowed, given None"),
    (
        {"trajectory_rubric": "politeness"},
        "max_rewind_steps: at least 1 is allowed with trajectory_rubric='politeness'",
    ),
    ({"trajectory_rubric": 3, "max_rewind_steps": 1}, "trajectory_rubric: a Rubric, a file or .* is allowed, given 3"),
    ({"rubric": 3}, "rubric: a Rubric, a file or the name of one in the library is allowed, given 3"),
    ({"rubric": None}, "rubric: a Rubric, a file or the name of one in the library is allowed, given None"),
    ({"tool_rubric": ["x"]}, r"rubric: a Rubric, a file or .* is allowed, given \['x'\]"),
    (
        {"on_unsatisfied": "bad"},
        "on_unsatisfied: 'refuse', 'best', 'raise', 'ask' or a callable is allowed, given 'bad'",
    ),
    ({"on_unsatisfied": None}, "on_unsatisfied: 'refuse', 'best', 'raise', 'ask' or a callable is allowed, given None"),
    ({"on_error": "ask"}, "on_error: allowed are 'refuse', 'best', 'raise' or a callable, given 'ask'"),
    ({"is_reversible": 3}, "is_reversible: names of tools, each with True or False, are allowed, given 3"),
    ({"is_reversible": ["read"]}, r"is_reversible: names of tools, .* given \['read'\]"),
    ({"is_reversible": {"read": "no"}}, r"is_reversible: names of tools, .* given {'read': 'no'}"),
    ({"is_reversible": {"read": 1}}, r"is_reversible: names of tools, .* given {'read': 1}"),
    ({"is_reversible": {3: True}}, r"is_reversible: names of tools, .* given {3: True}"),
    ({"name": ""}, r"name: text without any of : \| is allowed, given ''"),
    ({"name": 3}, r"name: text without any of : \| is allowed, given 3"),
    ({"name": "a:b"}, r"name: text without any of : \| is allowed, given 'a:b'"),
    ({"judge": 3}, "judge: .* is allowed, given 3"),
    ({"config": 3}, "config: .* given 3"),
    ({"max_seconds": -1}, "max_seconds: .* given -1"),
    ({"seed": "x"}, "seed: .* given 'x'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=str)
def test_a_wrong_argument_is_one_error_with_the_value_and_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RainConfigError, match=message):
        rain(**given)


@pytest.mark.parametrize("name", ["rubric", "tool_rubric", "trajectory_rubric"])
def test_an_unknown_rubric_is_an_error_that_names_those_there_are(name: str) -> None:
    arguments: dict[str, Any] = {name: "harmlesness", "max_rewind_steps": 1}
    with pytest.raises(RubricError, match=r"no rubric 'harmlesness' in the library; it holds .*harmlessness"):
        rain(**arguments)


def test_nothing_has_to_be_said_and_the_middleware_has_its_name() -> None:
    assert RainMiddleware().name == "RainMiddleware"
    assert RainMiddleware(name="second guard").name == "second guard"


def test_a_question_about_calls_or_trajectories_needs_a_model_that_judges() -> None:
    asks = Rubric(name="asks", criteria=(YesNoCriterion(name="asks", question="Is it good?", good="yes"),))
    with pytest.raises(RainConfigError, match="tool_rubric: the criterion 'asks' is asked of a model, and a function"):
        World(reply=FakeChat().reply, tool_rubric=asks).ask()


def test_a_callable_that_answers_for_a_trajectory_has_to_return_text() -> None:
    policy: Any = lambda error: 3  # noqa: E731
    world = World(
        calling(("read", "b"), number=1),
        OBEYED,
        judge=Naive(),
        tool_rubric=None,
        on_unsatisfied=policy,
        max_rewind_steps=1,
    )
    with pytest.raises(RainConfigError, match="on_unsatisfied: a callable that returns text is allowed; it returned 3"):
        world.ask()
