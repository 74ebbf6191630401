"""A gate in a stream: segments are given out as they satisfy, nothing that was rejected is, and nothing is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, HumanMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel

from langchain_rain import EngineError, RainConfig, RainConfigError, RainGate, Rubric, UnsatisfiedError
from langchain_rain.engines.dialogue import said_in_full
from langchain_rain.rubrics import PatternCriterion
from tests.conformance.listening import GRAPH, entered, graph_of, kept_by, streaming_graph_of
from tests.fake_chat_models import letter_judge
from tests.scripted_world import REFUSAL, RUBRIC, Kitchen
from tests.talking_model import USAGE, TalkingModel

MARK = "xyzzy"
"""Stands in what is rejected."""

SHORT = RainConfig(segment_lengths=(2, 4), max_rollout_tokens=8)
"""Segments of 8 and 16 characters, and of 32 at most where no clause ends."""

MEAL = "Peel the roots. Boil them, then mash. Add salt. Serve it with bread and butter, while it is hot."
POISONED = MEAL.replace("salt", MARK)


def dislikes_mark(text: str) -> float:
    return -1.0 if MARK in text else 1.0


class Judge:
    """A function that judges by a rule and remembers what it read."""

    def __init__(self, is_bad: Callable[[str], bool] = lambda text: MARK in text) -> None:
        self.read: list[str] = []
        self.is_bad = is_bad

    def __call__(self, text: Any) -> float:
        self.read.append(text.answer)
        return -1.0 if self.is_bad(text.answer) else 1.0


def gate(**arguments: Any) -> RainGate:
    return RainGate(**{"judge": dislikes_mark, "config": SHORT, **arguments})


def pieces(text: str, width: int = 3) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]


async def aiterated(items: Sequence[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def both(guard: Any, chunks: Sequence[Any], config: Any = None) -> list[Any]:
    """What comes out, which is the same of both kinds of stream."""
    out = list(guard.transform(iter(chunks), config))
    assert [each async for each in guard.atransform(aiterated(chunks), config)] == out
    return out


def summed(chunks: Sequence[Any]) -> AIMessageChunk:
    first, *others = chunks
    return add_ai_message_chunks(first, *others)


# --- What satisfies ------------------------------------------------------------------------------------------------


async def test_a_text_is_given_out_segment_by_segment_and_adds_up_to_what_invoke_gives() -> None:
    judge = Judge()
    out = await both(gate(judge=judge), pieces(MEAL))
    assert "".join(out) == MEAL == gate().invoke(MEAL)
    assert len(out) > 3
    read = judge.read[: len(judge.read) // 2]
    assert read == ["".join(out[:end]) for end in range(1, len(out) + 1)]  # all up to each cut, before it is given out
    assert all(segment.rstrip()[-1] in ",." for segment in out)


async def test_a_segment_is_given_out_before_the_next_is_asked_for() -> None:
    model = TalkingModel(pieces=pieces(MEAL))
    chunks: Any = (model | gate()).stream("Hi")
    first = next(chunks)
    assert MEAL.startswith(first.content)
    assert len(model.said) < len(model.pieces) / 2
    chunks.close()
    assert model.ends == ["stopped"]


@pytest.mark.parametrize("width", [1, 3, 1000])
async def test_a_message_adds_up_to_itself_with_all_that_it_brings(width: int) -> None:
    calls = [
        AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(name="cook", args='{"a"', id="1", index=0)]),
        AIMessageChunk(
            content="", tool_call_chunks=[tool_call_chunk(args=": 1}", index=0)], additional_kwargs={"x": {"y": "z"}}
        ),
    ]
    chain = TalkingModel(pieces=[*pieces(MEAL, width), *calls]) | gate()
    out = [each async for each in chain.astream("Hi")]
    whole = summed(out)
    assert (whole.content, whole.usage_metadata) == (MEAL, USAGE)
    assert whole.tool_calls == [{"name": "cook", "args": {"a": 1}, "id": "1", "type": "tool_call"}]
    assert (whole.additional_kwargs, whole.response_metadata["model_name"]) == ({"x": {"y": "z"}}, "talking")
    assert whole.chunk_position == "last"
    assert not any(each.tool_call_chunks or each.usage_metadata for each in out[:-1])
    assert len({each.id for each in out}) == 1


BLOCKS: list[Any] = [
    [{"type": "thinking", "thinking": "Roots, I think. They", "index": 0}],
    [{"type": "thinking", "thinking": " need peeling.", "index": 0}, {"type": "text", "text": "", "index": 1}],
    *([{"type": "text", "text": piece, "index": 1}] for piece in pieces(MEAL, 11)),
    [{"type": "text", "text": "Done.", "index": 1, "annotations": [{"a": 1}]}],
    [{"type": "tool_use", "name": "cook", "id": "1", "input": {}, "index": 2}],
    [{"type": "input_json_delta", "partial_json": '{"a": 1}', "index": 2}],
    [{"type": "text", "text": "And so on. " * 20, "index": 3}],
]


async def test_blocks_add_up_to_themselves_and_those_that_are_neither_text_nor_thought_wait() -> None:
    chunks = [AIMessageChunk(content=content, id="a", response_metadata={"model_provider": "m"}) for content in BLOCKS]
    out = await both(gate(), chunks)
    assert summed(out) == summed(chunks)
    kinds = [{block["type"] for block in each.content} for each in out]
    first_call = next(index for index, kind in enumerate(kinds) if "tool_use" in kind)
    before = "".join(str(each.text) for each in out[:first_call])
    assert (MEAL + "Done.").startswith(before)
    assert len(out[:first_call]) > 3
    assert all(each.response_metadata["model_provider"] == "m" for each in out)


async def test_what_is_thought_is_judged_before_it_is_given_out() -> None:
    thought = [AIMessageChunk(content=[{"type": "thinking", "thinking": f"{MARK}. " * 9, "index": 0}], id="a")]
    out = await both(gate(), [*thought, AIMessageChunk(content="Soup.", id="a")])
    assert [each.content for each in out] == [REFUSAL]


async def test_a_stream_without_a_chunk_gives_none_and_an_empty_one_is_judged() -> None:
    assert await both(gate(), []) == []
    assert await both(gate(), [""]) == [""]
    judge = Judge()
    assert (await both(gate(judge=judge), [AIMessageChunk(content="")]))[0].content == ""
    assert judge.read == ["", ""]


async def test_a_text_that_comes_at_once_is_judged_once() -> None:
    judge = Judge()
    assert await both(gate(judge=judge), [MEAL * 3]) == [MEAL * 3]
    assert judge.read == [MEAL * 3] * 2


@pytest.mark.parametrize("given", [AIMessage(MEAL), [HumanMessage("Hi"), AIMessage(MEAL)]])
async def test_what_comes_whole_is_judged_once_and_goes_on_as_the_same_object(given: Any) -> None:
    judge = Judge()
    (out,) = await both(gate(judge=judge), [given])
    assert out is given
    assert len(judge.read) == 2


async def test_chunks_of_other_speakers_are_judged_as_a_whole() -> None:
    chunks = [HumanMessageChunk(content=piece, id="h") for piece in pieces(MEAL)]
    (out,) = await both(gate(), chunks)
    assert out == HumanMessageChunk(content=MEAL, id="h")


@pytest.mark.parametrize(
    "given",
    [
        ["Soup", AIMessageChunk(content="Soup")],
        [AIMessageChunk(content="Soup"), "Soup"],
        [AIMessage("a"), AIMessage("b")],
    ],
)
def test_a_stream_of_several_kinds_is_an_error(given: list[Any]) -> None:
    with pytest.raises(RainConfigError, match="stream"):
        list(gate().transform(iter(given)))


# --- What does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 1000])
async def test_after_a_judgement_that_fails_comes_what_was_released_and_the_refusal(width: int) -> None:
    out = await both(gate(), pieces(POISONED, width))
    assert out[-1] == f"\n{REFUSAL}" or out == [REFUSAL]
    released = "".join(out[:-1])
    assert POISONED.startswith(released)
    assert MARK not in released
    assert released or width == 1000


async def test_whoever_brings_the_stream_is_stopped_at_once() -> None:
    model = TalkingModel(pieces=pieces(POISONED + MEAL * 5))
    chain = model | gate() | StrOutputParser()
    text = "".join(chain.stream("Hi"))
    assert "".join([piece async for piece in chain.astream("Hi")]) == text
    assert text.endswith(f"\n{REFUSAL}")
    assert model.ends == ["stopped", "stopped"]
    assert len(model.said) < len(model.pieces)  # of both streams together


async def test_a_refused_message_says_so_in_its_last_chunk() -> None:
    call = AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(name="cook", args="{}", id="1", index=0)])
    chunks = [AIMessageChunk(content=piece, id="a") for piece in pieces(MEAL)]
    end = AIMessageChunk(
        content=MARK, id="a", usage_metadata=USAGE, response_metadata={"model_name": "m", "logprobs": MARK}
    )
    whole = summed(await both(gate(), [call, *chunks, end]))
    assert str(whole.content).startswith("Peel the roots.")
    assert str(whole.content).endswith(f"\n{REFUSAL}")
    assert (whole.id, whole.tool_calls, whole.usage_metadata, whole.chunk_position) == ("a", [], USAGE, "last")
    assert (whole.response_metadata["finish_reason"], whole.response_metadata["model_name"]) == ("unsatisfied", "m")
    assert not whole.response_metadata["rain"]["is_satisfied"]
    assert MARK not in repr(whole)


async def test_text_that_a_sum_of_chunks_loses_is_judged_too() -> None:
    chunks = [AIMessageChunk(content=[], id="a")]
    chunks += [AIMessageChunk(content=piece, id="a") for piece in pieces(POISONED)]
    assert summed(chunks).content == []
    released = await both(gate(), chunks)
    assert MARK not in repr(released)
    assert released[-1].content[-1]["text"].endswith(REFUSAL)


async def test_a_refusal_after_blocks_is_a_block() -> None:
    chunks = [
        AIMessageChunk(content=[{"type": "text", "text": piece, "index": 0}], id="a") for piece in pieces(POISONED)
    ]
    whole = summed(await both(gate(), chunks))
    assert [block["type"] for block in whole.content if isinstance(block, dict)] == ["text", "text"]
    assert str(whole.text).endswith(REFUSAL)


async def test_raising_ends_the_stream_after_what_was_released() -> None:
    released: list[str] = []
    with pytest.raises(UnsatisfiedError) as caught:
        released.extend(gate(on_unsatisfied="raise").transform(iter(pieces(POISONED))))
    assert released
    assert POISONED.startswith("".join(released))
    assert MARK in caught.value.answer
    assert MARK not in repr(caught.value)


async def test_a_callable_answers_after_what_was_released() -> None:
    out = await both(gate(on_unsatisfied=lambda error: "Ask the cook."), pieces(POISONED))
    assert out[-1] == "\nAsk the cook."


async def test_best_gives_all_of_it_out_and_marks_it(caplog: pytest.LogCaptureFixture) -> None:
    chunks = [AIMessageChunk(content=piece, id="a") for piece in pieces(POISONED)]
    with caplog.at_level(logging.WARNING, logger="langchain_rain"):
        out = await both(gate(on_unsatisfied="best"), chunks)
    assert len(out) > 3
    assert summed(out).content == POISONED
    assert summed(out).response_metadata["rain"]["bypass"] == "on_unsatisfied=best"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]  # of both streams
    assert await both(gate(on_unsatisfied="best"), pieces(POISONED)) == [each.content for each in out]


VETO = PatternCriterion(name="b", must_not_match=MARK, veto=True)


async def test_what_a_veto_rules_out_is_not_even_given_by_best() -> None:
    veto = Rubric(name="v", criteria=(VETO,))
    guard = gate(judge=Kitchen(), rubric=veto, on_unsatisfied="best")
    out = await both(guard, pieces(POISONED))
    assert out[-1] == f"\n{REFUSAL}"
    assert MARK not in "".join(out)


@pytest.mark.parametrize("on_unsatisfied", ["refuse", "best"])
async def test_a_veto_at_the_end_holds_all_back(on_unsatisfied: Any) -> None:
    veto = Rubric(name="v", criteria=(VETO.model_copy(update={"applies_to": "final"}),))
    guard = gate(judge=Kitchen(), rubric=veto, on_unsatisfied=on_unsatisfied)
    assert await both(guard, pieces(POISONED)) == [REFUSAL]
    assert await both(guard, pieces(MEAL)) == [MEAL]


async def test_a_gate_that_is_to_judge_the_whole_streams_what_invoke_gives() -> None:
    assert await both(gate(whole=True), pieces(POISONED)) == [REFUSAL]
    assert await both(gate(whole=True), pieces(MEAL)) == [MEAL]


# --- Judges that fail ----------------------------------------------------------------------------------------------


def fails_after(length: int) -> Callable[[Any], float]:
    def judge(text: Any) -> float:
        if len(text.answer) > length:
            raise ZeroDivisionError(f"{MARK} broke the scale")
        return 1.0

    return judge


@pytest.mark.parametrize(
    ("on_error", "end"), [("refuse", f"\n{REFUSAL}"), (lambda error: "The judge is away.", "\nThe judge is away.")]
)
async def test_on_error_decides_what_follows_where_the_judge_fails(on_error: Any, end: str) -> None:
    out = await both(gate(judge=fails_after(40), on_error=on_error), pieces(MEAL))
    assert out[-1] == end
    assert len("".join(out[:-1])) <= 40
    with pytest.raises(EngineError):
        list(gate(judge=fails_after(40)).transform(iter(pieces(MEAL))))


async def test_best_after_an_error_holds_back_to_the_end_and_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    chunks = [AIMessageChunk(content=piece, id="a") for piece in pieces(MEAL)]
    with caplog.at_level(logging.INFO, logger="langchain_rain"):
        out = summed(await both(gate(judge=fails_after(40), on_error="best"), chunks))
    assert (out.content, out.response_metadata["rain"]["bypass"]) == (MEAL, "on_error=best")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert MARK not in caplog.text


async def test_the_budget_is_that_of_all_judgements_of_a_stream() -> None:
    kitchen = Kitchen()
    out = await both(gate(judge=kitchen, rubric=RUBRIC, max_forward_tokens=5), pieces(MEAL))
    # Two positions a judgement; after the third there is nothing left for a fourth.
    assert out[-1] == f"\n{REFUSAL}"
    assert len(out) == 3
    assert kitchen.is_idle
    best = await both(gate(judge=kitchen, rubric=RUBRIC, max_forward_tokens=5, on_unsatisfied="best"), pieces(MEAL))
    assert "".join(best) == MEAL


async def test_an_error_of_whoever_brings_the_stream_goes_through() -> None:
    def chunks() -> Iterator[str]:
        yield from pieces(MEAL)
        raise OSError("The line is cut.")

    out: list[str] = []
    with pytest.raises(OSError, match="line is cut"):
        out.extend(gate().transform(chunks()))
    assert MEAL.startswith("".join(out))


@pytest.mark.parametrize("is_message", [False, True])
async def test_characters_in_halves_fail_closed(is_message: bool) -> None:
    texts = [*pieces(MEAL), f" {MARK} \ud83d", "\ude00. And more, of it. " * 9, "The end."]
    chunks = [AIMessageChunk(content=text) if is_message else text for text in texts]
    with pytest.raises(EngineError, match="not valid Unicode") as caught:
        list(gate().transform(iter(chunks)))
    assert MARK not in str(caught.value)
    *released, end = await both(gate(on_error="refuse"), chunks)
    assert REFUSAL in (end.content if is_message else end)
    assert MEAL.startswith("".join(each.content if is_message else each for each in released))
    assert len(released) > 3


# --- Ends ----------------------------------------------------------------------------------------------------------


async def test_closing_a_stream_closes_whoever_brings_it() -> None:
    model = TalkingModel(pieces=pieces(MEAL))
    stream = (model | gate()).astream("Hi")
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    while not model.ends:  # a sequence leaves it to the event loop to close its steps
        await asyncio.sleep(0)
    assert model.ends == ["stopped"]


async def test_a_task_that_is_cancelled_while_a_segment_is_judged_leaves_nothing_open() -> None:
    closed: list[bool] = []
    judging = asyncio.Event()

    async def slow(text: str) -> float:
        judging.set()
        await asyncio.sleep(60)
        return 1.0

    async def chunks() -> AsyncIterator[str]:
        try:
            for piece in pieces(MEAL):
                yield piece
        finally:
            closed.append(True)

    async def read() -> None:
        async for _ in gate(judge=slow).atransform(chunks()):
            pass

    task = asyncio.create_task(read())
    await judging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_fifty_streams_at_once() -> None:
    kitchen = Kitchen(is_bad=lambda text: MARK in text)
    guard = gate(judge=kitchen, rubric=RUBRIC)

    async def read(number: int) -> str:
        text = f"{number}: {POISONED if number % 2 else MEAL}"
        return "".join([piece async for piece in guard.atransform(aiterated(pieces(text)))])

    outs = await asyncio.gather(*map(read, range(50)))
    assert [out == f"{number}: {MEAL}" for number, out in enumerate(outs)] == [True, False] * 25
    assert all(out.endswith(REFUSAL) and MARK not in out for out in outs[1::2])
    assert kitchen.is_idle


async def test_it_streams_beside_other_steps() -> None:
    chain = RunnableParallel(
        said=TalkingModel(pieces=pieces(POISONED)) | gate() | StrOutputParser(), same=RunnableLambda(str)
    )
    for out in (list(chain.stream("Hi")), [chunk async for chunk in chain.astream("Hi")]):
        said = "".join(chunk["said"] for chunk in out if "said" in chunk)
        assert said.endswith(f"\n{REFUSAL}")
        assert [chunk["same"] for chunk in out if "same" in chunk] == ["Hi"]


async def test_a_guard_of_prompts_reads_a_stream_to_its_end() -> None:
    judge = Judge()
    guard = gate(judge=judge).as_input_guard(on_unsatisfied=lambda error: "Something else?")
    assert await both(guard, pieces(MEAL)) == [MEAL]
    assert judge.read == [MEAL] * 2
    assert await both(guard, pieces(POISONED)) == ["Something else?"]
    with pytest.raises(RainConfigError, match="one message of the user's is needed"):
        list(guard.transform(iter([AIMessageChunk(content=MEAL), AIMessageChunk(content="")])))


# --- Nobody sees what was rejected ---------------------------------------------------------------------------------


class Ear(BaseCallbackHandler):
    run_inline = True

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self.heard.append((inputs, told))

    def on_chain_end(self, outputs: Any, **told: Any) -> None:
        self.heard.append((outputs, told))

    def on_chain_error(self, error: BaseException, **told: Any) -> None:
        self.heard.append((repr(error), told))

    def on_custom_event(self, name: str, data: Any, **told: Any) -> None:
        self.heard.append((name, data))


async def test_events_of_a_gate_hold_nothing_that_was_rejected(caplog: pytest.LogCaptureFixture) -> None:
    model = TalkingModel(pieces=pieces(POISONED)).with_config(tags=["writer"])
    with caplog.at_level(logging.DEBUG):
        events = [event async for event in (model | gate()).astream_events("Hi", version="v2", exclude_tags=["writer"])]
    streamed = [event["data"]["chunk"].content for event in events if event["event"] == "on_chain_stream"]
    assert "".join(streamed).count(REFUSAL) == 2  # of the gate, and of the chain
    assert MARK not in repr(events)
    assert MARK not in caplog.text
    for on_unsatisfied in ("refuse", "raise"):
        ear = Ear()
        with suppress(UnsatisfiedError):
            list(gate(on_unsatisfied=on_unsatisfied).transform(iter(pieces(POISONED)), {"callbacks": [ear]}))
        assert len(ear.heard) > 3
        assert MARK not in repr(ear.heard)


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("name", [name for name in GRAPH if not name.startswith("astream_events v1")])
@pytest.mark.parametrize("make", [graph_of, streaming_graph_of])
def test_a_graph_shows_nothing_of_a_model_that_is_tagged(make: Callable[[Any], Any], name: str) -> None:
    model = TalkingModel(pieces=pieces(POISONED)).with_config(tags=["nostream"])
    graph = make(model | gate(judge=letter_judge(lambda question: MARK in question), rubric=RUBRIC))
    config: RunnableConfig = {"callbacks": [], "configurable": {"thread_id": "table 4"}}
    out = entered(GRAPH[name], graph, {"messages": [("human", "Supper?")]}, config)
    if name.startswith("astream_events v2"):
        out = [event for event in out if "nostream" not in event["tags"]]
    assert MARK not in repr(out)
    assert MARK not in repr(kept_by(graph, config))
    assert (REFUSAL in repr(out)) == ("custom" not in name)


TEXTS = st.lists(st.sampled_from(["a", "bc ", "d, ", "e. ", "\n", "é", "，", "xyzzy"]), max_size=60).map("".join)  # noqa: RUF001


def chunked(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@settings(max_examples=40)
@given(TEXTS, st.lists(st.integers(0, 400), max_size=30), st.none() | st.integers(0, 12), st.booleans())
def test_what_is_released_was_judged_good(text: str, cuts: list[int], fails_at: int | None, is_message: bool) -> None:
    """Whatever the text, the chunks and the judgement that fails."""
    judge = Judge(lambda answer: MARK in answer or len(judge.read) - 1 == fails_at)
    given_pieces = chunked(text, cuts)
    chunks = [AIMessageChunk(content=piece, id="a") if is_message else piece for piece in given_pieces]
    out = list(gate(judge=judge).transform(iter(chunks)))
    read, judge.read = judge.read, []

    async def aout() -> list[Any]:
        return [each async for each in gate(judge=judge).atransform(aiterated(chunks))]

    assert asyncio.run(aout()) == out
    assert judge.read == read
    shown = [each.content if is_message else each for each in out]
    is_refused = bool(read) and (MARK in read[-1] or len(read) - 1 == fails_at)
    released = "".join(shown[:-1] if is_refused else shown)
    assert released == text or (is_refused and text.startswith(released))
    assert MARK not in released
    good = read[:-1] if is_refused else read
    assert released == (good[-1] if good else "")
    if is_refused:
        assert shown[-1] == (f"\n{REFUSAL}" if released and not released[-1].isspace() else REFUSAL)


WORDS = st.sampled_from(["", "a", "bc. ", "d, e", " ", ". ", "f; gh. i"])
CONTENTS = st.one_of(
    WORDS,
    st.lists(
        st.one_of(
            WORDS,
            st.builds(lambda text: {"type": "text", "text": text, "index": 0, "id": "t"}, WORDS),
            st.builds(lambda text: {"type": "text", "text": text, "index": "lc_1", "annotations": [text]}, WORDS),
            st.builds(lambda text: {"type": "text", "text": text}, WORDS),
            st.builds(lambda text: {"type": "thinking", "thinking": text, "index": 2}, WORDS),
            st.builds(lambda text: {"type": "reasoning", "summary": [{"text": text}]}, WORDS),
            st.just({"type": "tool_use", "id": "1", "name": "cook", "input": {}, "index": 3}),
        ),
        max_size=1,
    ),
)
CHUNKS = st.builds(
    lambda content, args, extra, identity, usage: AIMessageChunk(
        content=content,
        id=identity,
        tool_call_chunks=[] if args is None else [tool_call_chunk(name=None, args=args, id=None, index=0)],
        additional_kwargs=extra,
        response_metadata={"model_provider": "m"} | ({"logprobs": [extra]} if extra else {}),
        usage_metadata=USAGE if usage else None,
    ),
    CONTENTS,
    st.none() | st.sampled_from(["{", '"a": 1', "}"]),
    st.just({}) | st.just({"x": {"y": "z"}}),
    st.sampled_from([None, "lc_run--1", "lc_1", "msg_1"]),
    st.booleans(),
)


@settings(max_examples=40)
@given(st.lists(CHUNKS, min_size=1, max_size=20))
def test_whatever_the_chunks_they_add_up_to_what_came_in(chunks: list[AIMessageChunk]) -> None:
    out = list(gate().transform(iter(chunks)))
    assert summed(out) == summed(chunks)
    judge = Judge(lambda answer: len(answer) > 40)
    *released, end = gate(judge=judge).transform(iter(chunks))
    if len(judge.read[-1]) > 40:
        assert str(end.text).strip() == REFUSAL
        # What has been released is what was judged last and satisfied, whatever way blocks add up to a message.
        start = AIMessageChunk(content="")
        shown = said_in_full(AIMessage(summed([start, *released]).content))
        assert shown == (judge.read[-2] if len(judge.read) > 1 else "")
