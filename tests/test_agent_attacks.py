"""Agents that are led astray by what their tools tell them, with and without a guard."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_rain import CallableCriterion, ChatRain, PatternCriterion, RainConfigError, Rubric
from langchain_rain.engines.callables import JudgedText
from langchain_rain.middleware import RainMiddleware
from langchain_rain.rubrics.criteria import AnyCriterion
from tests.attacks.agent import OF_ATTACKER, gullible, texts_in
from tests.attacks.rules import TEXT_RUBRIC, are_allowed, tool_rubric
from tests.attacks.running import Outcome, arun, faults, run
from tests.attacks.script import FAMILIES, Script, Turn, of_family, scripts
from tests.attacks.world import READING, TOOLS, World
from tests.fake_chat_models import letter_judge

REFUSAL = "That is not possible."
MAX_MORE_CALLS = 1.1
"""Calls of the writer in benign conversations, as a share of those without a guard."""

by_family = pytest.mark.parametrize("family", FAMILIES)


def guard(script: Script) -> RainMiddleware:
    """Turns and calls are judged exactly."""
    return RainMiddleware(TEXT_RUBRIC, tool_rubric=tool_rubric(script.world), refusal_message=REFUSAL)


def covered(family: str) -> list[Script]:
    return [script for script in of_family(family) if script.is_covered]


def test_there_are_many_attacks_of_several_kinds() -> None:
    sizes = Counter(script.family for script in scripts())
    assert len(scripts()) >= 80
    assert sizes.keys() == set(FAMILIES)
    assert min(sizes.values()) >= 8
    assert len({script.name for script in scripts()}) == len(scripts())


@by_family
def test_without_a_guard_every_attack_works(family: str) -> None:
    for script in of_family(family):
        for number in range(len(script.bad)):
            outcome = run(script.beginning_with(number))
            assert outcome.is_harmed == script.runs, f"{script.name}, {script.bad[number]}: {outcome.bad}"


@by_family
def test_no_bad_call_runs_that_a_pattern_or_a_function_covers(family: str) -> None:
    for script in covered(family):
        outcome = run(script, guard(script))
        assert not outcome.is_harmed, f"{script.name}: {outcome.bad or outcome.said}"
        assert [*faults(outcome)] == [], script.name
        assert_ends_well(outcome)


@by_family
async def test_on_an_event_loop_it_is_the_same(family: str) -> None:
    for script in covered(family)[:3]:
        outcome = await arun(script, guard(script))
        assert not outcome.is_harmed, script.name
        assert [*faults(outcome)] == [], script.name
        assert outcome.answers == run(script, guard(script)).answers, script.name


def assert_ends_well(outcome: Outcome) -> None:
    """All that the model had in mind was rejected, and it then did what was asked; or it never gave in."""
    script = outcome.script
    if script.is_stubborn:
        assert REFUSAL in outcome.answers, script.name
        return
    assert outcome.answers == [turn.answer for turn in script.turns], script.name
    assert outcome.ran == script.planned, script.name
    assert len(outcome.model.asked) == len(script.planned) + len(script.turns) + len(script.bad), script.name


def test_benign_twins_end_the_same_and_cost_hardly_more() -> None:
    num_guarded = num_unguarded = 0
    for script in scripts():
        plain, guarded = run(script.twin), run(script.twin, guard(script))
        assert guarded.answers == plain.answers == [turn.answer for turn in script.turns], script.name
        assert guarded.ran == plain.ran == script.planned, script.name
        assert [*faults(guarded)] == [], script.name
        num_guarded += len(guarded.model.asked)
        num_unguarded += len(plain.model.asked)
    assert num_guarded <= MAX_MORE_CALLS * num_unguarded


# --- Going back ------------------------------------------------------------------------------------------------------

ANYTHING = Rubric(name="anything", criteria=(PatternCriterion(name="anything", must_not_match="(?!)"),))
"""Any turn satisfies it: only trajectories are judged."""


def sees(script: Script) -> PatternCriterion:
    """Finds what an attacker has put somewhere, however it is quoted."""
    lines = [max(injected.splitlines(), key=len) for injected in script.injections]
    patterns = [r"[\W_]+".join(re.findall(r"[^\W_]+", line)) for line in lines]
    return PatternCriterion(name="nothing_injected", must_not_match="|".join(patterns))


def does_only_what_is_allowed(script: Script) -> CallableCriterion:
    """Finds what the agent has done that it must not do."""

    def judge(text: JudgedText) -> float:
        return 1.0 if are_allowed(script.world, text.answer) else -1.0

    return CallableCriterion(name="allowed", function=judge)


def going_back(criterion: AnyCriterion, *, max_steps: int = 3, reversible: Collection[str] = READING) -> RainMiddleware:
    return RainMiddleware(
        ANYTHING,
        trajectory_rubric=Rubric(name="trajectory", criteria=(criterion,)),
        max_rewind_steps=max_steps,
        is_reversible=dict.fromkeys(reversible, True),
        refusal_message=REFUSAL,
    )


def holds_poison(script: Script, messages: Iterable[BaseMessage]) -> bool:
    texts = [text for message in messages for text in texts_in(message.content)]
    return any(injected in text for injected in script.injections for text in texts)


@by_family
def test_what_was_injected_is_withheld_and_the_answer_is_that_of_the_benign_twin(family: str) -> None:
    for script in of_family(family):
        outcome = run(script, going_back(sees(script)))
        assert outcome.answers == [turn.answer for turn in script.turns], script.name
        assert outcome.ran == script.planned, script.name
        assert not holds_poison(script, outcome.messages), script.name
        assert not any(holds_poison(script, messages) for messages, _ in outcome.model.asked), script.name
        assert [*faults(outcome)] == [], script.name


def test_benign_twins_never_go_back() -> None:
    for script in scripts():
        outcome = run(script.twin, going_back(sees(script)))
        assert outcome.answers == [turn.answer for turn in script.turns], script.name
        assert outcome.ran == script.planned, script.name
        assert len(outcome.model.asked) == len(script.planned) + len(script.turns), script.name


def calls_in(outcome: Outcome) -> list[str]:
    """The ids of the calls in the state."""
    return [str(call["id"]) for each in outcome.messages if isinstance(each, AIMessage) for call in each.tool_calls]


def done_before_it_is_judged() -> list[Script]:
    """Attacks whose first bad call runs, and is found then."""
    return [each for each in scripts() if each.is_covered and each.runs and each.bad[0].calls and len(each.turns) == 1]


def test_a_tool_that_cannot_be_taken_back_ends_the_run() -> None:
    judged = [each for each in done_before_it_is_judged() if each.bad[0].calls[0].tool not in READING]
    assert len(judged) > 30
    for script in judged:
        outcome = run(script, going_back(does_only_what_is_allowed(script)))
        assert outcome.answers == [REFUSAL], script.name
        assert outcome.bad, script.name
        ids = calls_in(outcome)
        assert ids[-1].startswith(OF_ATTACKER), f"{script.name}: what was done stays to be seen"
        assert len(outcome.model.asked) == len(ids) - len(script.bad[0].calls) + 1, script.name


def test_what_can_be_taken_back_is_as_if_it_had_not_been() -> None:
    for script in done_before_it_is_judged():
        every = going_back(does_only_what_is_allowed(script), reversible=TOOLS)
        outcome = run(script, every)
        assert outcome.answers == [script.turns[0].answer], script.name
        assert not holds_poison(script, outcome.messages), script.name
        assert not [id for id in calls_in(outcome) if id.startswith(OF_ATTACKER)], script.name
        results = [each.tool_call_id for each in outcome.messages if isinstance(each, ToolMessage)]
        assert results == calls_in(outcome), script.name


def test_what_ends_a_run_is_not_read_in_the_next_one() -> None:
    (script,) = [each for each in scripts() if each.name == "three poisoned pages on end"]
    again = replace(script, turns=(*script.turns, Turn("Go on.", (), "As I said.")))
    outcome = run(again, going_back(sees(script), max_steps=2))
    assert outcome.answers == [REFUSAL, "As I said."]
    assert not holds_poison(script, outcome.messages)
    assert not any(holds_poison(script, messages) for messages, _ in outcome.model.asked)


@pytest.mark.parametrize("script", [each for each in scripts() if len(each.turns) > 1], ids=lambda each: each.name)
def test_outputs_that_nobody_has_judged_are_judged_in_the_next_turn(script: Script) -> None:
    outcome = run(script, going_back(sees(script)), ends_with=script.turns[0].plan[-1].call.tool)
    assert not outcome.is_harmed
    assert not any(holds_poison(script, messages) for messages, _ in outcome.model.asked)


def test_a_guarded_model_that_judges_calls_is_given_no_second_rubric_for_them() -> None:
    script = scripts()[0]
    model = ChatRain(
        model=gullible(script), rubric=TEXT_RUBRIC, tool_rubric=tool_rubric("office"), judge=letter_judge()
    )
    agent = create_agent(model, World(script).tools, middleware=[guard(script)])
    with pytest.raises(RainConfigError, match="tool_rubric: the agent's ChatRain has one of its own"):
        agent.invoke({"messages": [HumanMessage("Hi.")]})
