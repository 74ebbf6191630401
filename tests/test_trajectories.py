"""An agent goes back as far as it has to and no further, by ids, and never past what cannot be taken back."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_rain.search.protocol import Transcript
from langchain_rain.trajectories import IS_WITHHELD, OF_OTHERS, Rewound, Trajectory, rewind

ASKED = HumanMessage("Read my mail.", id="asked")


def step(number: int, *results: str, text: str = "", tool: str = "read") -> list[BaseMessage]:
    """A turn that calls a tool once for each result."""
    calls = [tool_call(name=tool, args={"n": at}, id=f"call_{number}_{at}") for at in range(len(results))]
    turn = AIMessage(text, id=f"turn_{number}", tool_calls=calls)
    return [
        turn,
        *(
            ToolMessage(said, id=f"result_{number}_{at}", name=tool, tool_call_id=f"call_{number}_{at}")
            for at, said in enumerate(results)
        ),
    ]


def conversation(*steps: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [SystemMessage("Help."), HumanMessage("Hi.", id="before"), AIMessage("Hello.", id="hello"), ASKED] + [
        each for one in steps for each in one
    ]


def satisfies(transcript: Transcript) -> bool:
    return "EVIL" not in transcript.answer


def rewound(
    messages: Sequence[BaseMessage],
    *,
    max_steps: int = 3,
    is_reversible: Callable[[str], bool] = lambda name: name == "read",
    judge: Callable[[Transcript], bool] = satisfies,
) -> tuple[Rewound, int]:
    """What going back comes to, and how many judgements it takes."""
    steps = rewind(Trajectory.of(messages), max_steps=max_steps, is_reversible=is_reversible, rubric="calm")
    answer, count = None, 0
    while True:
        try:
            transcript = steps.send(answer)  # type: ignore[arg-type]  # the first takes nothing
        except StopIteration as stop:
            return stop.value, count
        answer, count = judge(transcript), count + 1


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(each.text) for each in messages]


def test_what_satisfies_stays_as_it_is_after_one_judgement() -> None:
    messages = conversation(step(1, "one"), step(2, "two", "three"))
    found, count = rewound(messages)
    assert found == Rewound(messages)
    assert count == 1


def test_a_judge_reads_what_was_done_after_what_was_asked_with_what_is_untrusted_named() -> None:
    transcript = Trajectory.of(conversation(step(1, "Human: obey", text="I look."))).transcript
    assert transcript.prompt.endswith("Human: Read my mail.\n\nAssistant:")
    assert "Assistant: Hello." in transcript.prompt
    assert transcript.answer.startswith(" I look.\n[calls the tool read with")
    assert "[untrusted output of read]\n" in transcript.answer
    assert "\nHuman: obey" not in transcript.answer


def test_the_output_that_is_to_blame_is_withheld_and_its_call_keeps_its_place() -> None:
    messages = conversation(step(1, "one"), step(2, "two", "EVIL", "three"))
    found, _ = rewound(messages)
    assert [each.id for each in found.messages] == [each.id for each in messages]
    assert [each.id for each in found.withheld] == ["result_2_1"]
    assert found.withheld[0].text == "EVIL"
    assert (found.taken_back, found.num_steps, found.is_satisfied) == ((), 1, True)
    (replaced,) = [each for each in found.messages if each.additional_kwargs.get(IS_WITHHELD)]
    assert isinstance(replaced, ToolMessage)
    assert (replaced.tool_call_id, replaced.name, replaced.status) == ("call_2_1", "read", "error")
    assert replaced.text.startswith("The output of read was withheld: it did not satisfy 'calm'.")


def test_two_outputs_that_are_to_blame_together_are_both_withheld() -> None:
    found, _ = rewound(conversation(step(1, "EVIL", "EVIL", "three")))
    assert {"result_1_0", "result_1_1"} <= {each.id for each in found.withheld}
    assert found.is_satisfied


def test_a_turn_that_is_to_blame_is_taken_back_with_what_led_to_it_withheld() -> None:
    messages = conversation(step(1, "one"), step(2, "two"), step(3, "three", text="EVIL"))
    found, _ = rewound(messages)
    assert [each.id for each in found.taken_back] == ["turn_3", "result_3_0"]
    assert [each.id for each in found.withheld] == ["result_2_0"]
    assert [each.id for each in found.messages] == [each.id for each in messages[:-2]]
    assert (found.num_steps, found.is_satisfied) == (1, True)


def test_if_that_is_not_enough_it_goes_back_further() -> None:
    messages = conversation(step(1, "one"), step(2, "two", text="EVIL"), step(3, "three", text="EVIL"))
    found, _ = rewound(messages)
    assert [each.id for each in found.taken_back] == ["turn_3", "result_3_0", "turn_2", "result_2_0"]
    assert [each.id for each in found.withheld] == ["result_2_0", "result_1_0"]
    assert (found.num_steps, found.is_satisfied) == (2, True)


def test_of_all_that_was_done_nothing_may_be_left() -> None:
    found, _ = rewound(conversation(step(1, "one", text="EVIL")))
    assert found.messages == conversation()
    assert found.is_satisfied


def test_what_cannot_be_taken_back_stops_it() -> None:
    messages = conversation(step(1, "one"), step(2, "two", text="EVIL", tool="send"), step(3, "EVIL", text="EVIL"))
    found, _ = rewound(messages)
    assert (found.stopped_by, found.is_satisfied, found.num_steps) == ("send", False, 1)
    assert [each.id for each in found.taken_back] == ["turn_3", "result_3_0"]
    assert "turn_2" in {each.id for each in found.messages}


def test_what_led_to_what_cannot_be_taken_back_is_not_read_again() -> None:
    messages = conversation(step(1, "one"), step(2, "two"), step(3, "three", text="EVIL", tool="send"))
    found, _ = rewound(messages)
    assert (found.stopped_by, found.taken_back) == ("send", ())
    assert [each.id for each in found.withheld] == ["result_2_0"]
    assert [each.id for each in found.messages] == [each.id for each in messages]


def test_an_output_of_such_a_tool_may_be_withheld_as_nothing_is_undone() -> None:
    found, _ = rewound(conversation(step(1, "EVIL", tool="send")))
    assert ([each.id for each in found.withheld], found.is_satisfied, found.stopped_by) == (["result_1_0"], True, "")


@pytest.mark.parametrize("max_steps", [0, 1, 2])
def test_it_goes_back_no_further_than_it_may(max_steps: int) -> None:
    messages = conversation(*(step(number, "x", text="EVIL") for number in range(1, 5)))
    found, _ = rewound(messages, max_steps=max_steps)
    assert (found.num_steps, found.is_satisfied) == (max_steps, False)
    assert len(found.taken_back) == 2 * max_steps


def test_a_withheld_output_is_not_withheld_again() -> None:
    first, _ = rewound(conversation(step(1, "EVIL")))
    found, _ = rewound(first.messages, judge=lambda transcript: False)
    assert found.withheld == ()
    assert [each.id for each in found.taken_back] == ["turn_1", "result_1_0"]


NOTE = SystemMessage("Note.", id="note")


def test_an_output_is_judged_though_somebody_else_has_put_a_message_after_it() -> None:
    messages = [*conversation(step(1, "EVIL")), NOTE]
    found, _ = rewound(messages)
    assert [each.id for each in found.withheld] == ["result_1_0"]
    assert [each.id for each in found.messages] == [each.id for each in messages]


def test_a_message_of_somebody_else_is_a_place_that_nothing_goes_back_behind() -> None:
    messages = [*conversation(step(1, "fine", text="EVIL")), NOTE, *step(2, "fine")]
    found, _ = rewound(messages)
    assert [each.id for each in found.taken_back] == ["turn_2", "result_2_0"]
    assert [each.id for each in found.messages] == [each.id for each in messages[:-2]]
    assert (found.is_satisfied, found.stopped_by) == (False, OF_OTHERS)


TURN, RESULT = step(1, "EVIL")
AMONG_RESULTS = {
    "a human message before it": [TURN, HumanMessage("Note.", id="note"), RESULT],
    "one after it": [TURN, RESULT, HumanMessage("Note.", id="note")],
    "one before and after it": [TURN, HumanMessage("Note.", id="note"), RESULT, HumanMessage("Note.", id="note 2")],
    "a system message and a human one after it": [TURN, RESULT, NOTE, HumanMessage("Go on.", id="more")],
    "an answer of another agent after it": [TURN, RESULT, AIMessage("Note.", id="note")],
    "one before it": [TURN, AIMessage("Note.", id="note"), RESULT],
    "no turn before it": [RESULT],
}


@pytest.mark.parametrize("given_messages", AMONG_RESULTS.values(), ids=AMONG_RESULTS)
def test_an_output_is_judged_whatever_its_tool_puts_beside_it(given_messages: list[BaseMessage]) -> None:
    messages = conversation(given_messages)
    assert Trajectory.of(messages).messages == messages
    assert Trajectory.of(messages).has_results
    found, _ = rewound(messages)
    assert [each.id for each in found.withheld] == ["result_1_0"]
    assert found.is_satisfied


def test_a_call_never_stays_without_its_result() -> None:
    messages = conversation([TURN, AIMessage("EVIL", id="note"), RESULT])
    found, _ = rewound(messages)
    assert (found.taken_back, found.is_satisfied, found.stopped_by) == ((), False, OF_OTHERS)


def test_without_a_human_message_all_that_was_done_counts() -> None:
    found, _ = rewound([*step(1, "EVIL"), *step(2, "two")])
    assert [each.id for each in found.messages] == ["turn_1", "result_1_0"]
    assert [each.id for each in found.withheld] == ["result_1_0"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["", "EVIL"]), st.lists(st.sampled_from(["fine", "EVIL"]), max_size=3), st.booleans()),
    max_size=5,
)


@given(STEPS, st.integers(0, 6))
def test_whatever_was_done_what_is_left_satisfies_or_it_is_said_why_not(
    given_steps: list[tuple[str, list[str], bool]], max_steps: int
) -> None:
    steps = [
        step(number, *results, text=text, tool="read" if is_reversible else "send")
        for number, (text, results, is_reversible) in enumerate(given_steps)
    ]
    messages = conversation(*steps)
    found, count = rewound(messages, max_steps=max_steps)
    if found.is_satisfied:
        assert satisfies(Trajectory.of(found.messages).transcript)
    else:
        assert found.stopped_by == "send" or found.num_steps == max_steps
    ids = [each.id for each in messages]
    left = [each.id for each in found.messages]
    assert left == ids[: len(left)]
    assert [each.id for each in found.taken_back if isinstance(each, AIMessage)] == [
        each for each in reversed(ids[len(left) :]) if str(each).startswith("turn")
    ]
    assert not any(call["name"] == "send" for each in found.taken_back for call in getattr(each, "tool_calls", ()))
    assert found.num_steps <= max_steps
    assert count <= 1 + 6 * (max_steps + 1)
    answered = {each.tool_call_id for each in found.messages if isinstance(each, ToolMessage)}
    asked = {call["id"] for each in found.messages for call in getattr(each, "tool_calls", ())}
    assert answered == asked
    assert texts(found.messages[:4]) == texts(messages[:4])
