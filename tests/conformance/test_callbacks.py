"""The run of an answer: its children, its custom events, its usage (defects 2, 9, 10 and 11)."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import UUID

import pytest
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from pydantic import PrivateAttr

from langchain_rain import ChatRain
from tests.conformance.listening import (
    CHAT,
    GRAPH,
    RUNNABLE,
    Ear,
    StreamingEar,
    StreamingV2Ear,
    agent_of,
    chain_of,
    entered,
    graph_of,
)
from tests.conformance.worlds import (
    BAD,
    DISH,
    MARK,
    QUESTION,
    ROLLED,
    Chef,
    StreamingChef,
    TellingChef,
    chef_chat,
    is_judgement,
    kitchen_chat,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
]

CHILD_RUNS = Counter(rain_draft=2, rain_judgement=4)
"""Of one answer of a chef: a draft that is rejected and one that is not, each judged in both orders of the options."""

GOOD = {"value": 1.0, "values": {"edible": 1.0}, "is_vetoed": False, "is_abstained": False}
POOR = {**GOOD, "value": -1.0, "values": {"edible": -1.0}}


def drafted(text: str, rollout: str, num_tokens: int) -> tuple[str, Any]:
    return "rain_draft", {"text": text + rollout, "rollout": rollout, "num_tokens": num_tokens}


def committed(text: str, num_simulations: int) -> tuple[str, Any]:
    told = {"text": text, "value": 1.0, "num_simulations": num_simulations, "is_satisfied": True}
    return "rain_commit", told


KITCHEN_EVENTS = [
    drafted(" Warm", ROLLED, 1),
    ("rain_verdict", GOOD),
    committed(" Warm", 1),
    drafted(f" Warm{BAD}", ROLLED, 2),
    ("rain_verdict", POOR),
    ("rain_rewind", {"num_tokens": 1}),
    drafted(" Warm the soup", ROLLED, 2),
    ("rain_verdict", GOOD),
    committed(" the soup", 2),
    drafted(" Warm the soup.", "", 3),
    ("rain_verdict", GOOD),
    committed(".", 1),
]

CHEF_EVENTS = [
    drafted(f'{DISH} {MARK}!\n{{"note": "written {MARK}!"}}', "", 1),
    ("rain_verdict", POOR),
    ("rain_rewind", {"num_tokens": 1}),
    drafted(f'{DISH}\n{{"note": "written"}}', "", 1),
    ("rain_verdict", GOOD),
    committed(f'{DISH}\n{{"note": "written"}}', 2),
]

Way = tuple[str, str]

MADE: dict[str, tuple[Callable[[ChatRain], Any], Any, dict[str, Any]]] = {
    "chat": (lambda chat: chat, QUESTION, CHAT),
    "chain": (chain_of, {"question": QUESTION}, RUNNABLE),
    "graph": (graph_of, {"messages": [("human", QUESTION)]}, GRAPH),
}
GRAPH_WAYS = ["invoke", "ainvoke", "stream messages", "astream messages", "astream_events v2", "stream_events v3"]
WAYS: list[Way] = [*(("chat", name) for name in CHAT), *(("chain", name) for name in RUNNABLE)] + [
    ("graph", name) for name in GRAPH_WAYS
]


def heard(way: Way, chat: ChatRain) -> Ear:
    """What a handler is told."""
    ear = Ear()
    called(way, chat, [ear])
    return ear


def called(way: Way, chat: ChatRain, callbacks: Any) -> Any:
    kind, name = way
    make, given, entries = MADE[kind]
    config: RunnableConfig = {"callbacks": callbacks, "configurable": {"thread_id": "table 4"}}
    return entered(entries[name], make(chat), given, config)


def of_each_run(events: list[tuple[str, Any, UUID]]) -> dict[UUID, list[tuple[str, Any]]]:
    runs: dict[UUID, list[tuple[str, Any]]] = {run: [] for _, _, run in events}
    for name, data, run in events:
        runs[run].append((name, data))
    return runs


# --- Child runs (defect 10) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_drafts_and_judgements_are_child_runs_exactly_once_each(way: Way) -> None:
    """Defect 10: what is called inside keeps the user's callbacks, and is below the run and not beside it."""
    ear = heard(way, chef_chat())
    below = {run: Counter(name for name, _, parent, _ in ear.trace if parent == run) for run in ear.tops}
    assert below == dict.fromkeys(ear.tops, CHILD_RUNS)
    assert len(ear.trace) == len(ear.tops) * CHILD_RUNS.total()
    assert Counter(ear.ended) == Counter([*ear.tops, *(run for _, run, _, _ in ear.trace)])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_child_runs_are_kept_out_of_streams_by_their_tag(way: Way) -> None:
    """Defect 2: a stream of messages passes over what carries this tag."""
    tags = [tags for *_, tags in heard(way, chef_chat()).trace]
    assert tags
    assert all("nostream" in each for each in tags)


def test_the_run_itself_does_not_carry_the_tag() -> None:
    ear = heard(("chat", "invoke"), chef_chat())
    ((_, told),) = [each for each in ear.heard if isinstance(each, tuple) and "invocation_params" in each[1]]
    assert "nostream" not in told["tags"]


def test_judgements_of_a_chat_model_are_child_runs_of_a_search_over_token_sets_too() -> None:
    ear = heard(("chat", "invoke"), kitchen_chat(judge=Chef()))
    assert {(name, parent) for name, _, parent, _ in ear.trace} == {("rain_judgement", ear.tops[0])}


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream", "batch"])
def test_what_a_function_asks_that_judges_is_a_child_run_too(name: str) -> None:
    """Defect 10, where the user's own function does not pass on callbacks."""

    def judge(transcript: str) -> float:
        Chef().invoke(transcript)
        return -1.0 if f"{MARK}!" in transcript else 1.0

    ear = heard(("chat", name), kitchen_chat(judge=judge))
    assert Counter(parent for _, _, parent, _ in ear.trace) == dict.fromkeys(ear.tops, 4)
    assert {tuple(tags) for *_, tags in ear.trace} == {("nostream",)}


def test_tags_and_metadata_reach_the_children() -> None:
    class Asked(Ear):
        started: ClassVar[list[tuple[set[str], int]]] = []

        def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
            self.started.append((set(told["tags"]), told["metadata"]["table"]))

    ear = Asked()
    chef_chat().invoke(QUESTION, {"callbacks": [ear], "tags": ["supper"], "metadata": {"table": 4}})
    assert ear.started == [({"supper"}, 4), *[({"supper", "nostream"}, 4)] * CHILD_RUNS.total()]


# --- Custom events (defect 9) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("make", "expected"), [(kitchen_chat, KITCHEN_EVENTS), (chef_chat, CHEF_EVENTS)])
def test_custom_events_are_told_of_the_run_of_the_answer(
    way: Way, make: Callable[[], ChatRain], expected: list[tuple[str, Any]]
) -> None:
    """Defect 9: in order, with the run id of the answer, in a chain or a graph or standing alone."""
    ear = heard(way, make())
    assert of_each_run(ear.custom) == dict.fromkeys(ear.tops, expected)


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("make", [kitchen_chat, chef_chat])
def test_without_any_handler_nothing_is_raised(
    name: str, make: Callable[[], ChatRain], caplog: pytest.LogCaptureFixture
) -> None:
    """Defect 9: there is no run to tell of it then."""
    caplog.set_level(logging.WARNING)
    called(("chat", name), make(), None)
    assert caplog.records == []


async def test_custom_events_are_in_the_stream_of_events() -> None:
    events = [event async for event in kitchen_chat().astream_events(QUESTION, version="v2")]
    custom = [(event["name"], event["data"]) for event in events if event["event"] == "on_custom_event"]
    runs = {event["run_id"] for event in events}
    assert custom == KITCHEN_EVENTS
    assert len(runs) == 1


@pytest.mark.parametrize("make", [kitchen_chat, chef_chat])
def test_handlers_of_the_model_itself_are_told_too(make: Callable[..., ChatRain]) -> None:
    ear = Ear()
    chat = make(callbacks=[ear])
    chat.invoke(QUESTION)
    list(chat.stream(QUESTION))
    events = of_each_run(ear.custom)
    assert list(events) == ear.tops
    assert len(set(map(str, events.values()))) == 1


@pytest.mark.parametrize("ear", [StreamingEar, StreamingV2Ear])
def test_handlers_that_make_it_stream_are_told_of_custom_events(ear: Callable[[], Ear]) -> None:
    streaming_ear = ear()
    kitchen_chat().invoke(QUESTION, {"callbacks": [streaming_ear]})
    assert of_each_run(streaming_ear.custom) == {streaming_ear.tops[0]: KITCHEN_EVENTS}


# --- Usage (defect 11) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("has_critic", [False, True])
def test_usage_is_counted_once(way: Way, *, has_critic: bool) -> None:
    """Defect 11: drafts and judgements, rejected or not, by the context manager and by a handler."""
    chef = Chef()
    critic = Chef(model_name="critic") if has_critic else None
    chat = chef_chat(chef, judge=critic)
    handler = UsageMetadataCallbackHandler()
    with get_usage_metadata_callback() as callback:
        called(way, chat, [handler])
    total = chef.log.total + (critic.log.total if critic is not None else 0)
    assert {name: usage["total_tokens"] for name, usage in callback.usage_metadata.items()} == {"chef": total}
    assert callback.usage_metadata == handler.usage_metadata


@pytest.mark.parametrize("kind", [StreamingChef, TellingChef])
def test_usage_of_models_that_stream_is_counted_once(kind: type[StreamingChef]) -> None:
    """Defect 11."""
    chef = kind(streaming=True)
    with get_usage_metadata_callback() as callback:
        answer = chef_chat(chef).invoke(QUESTION)
    assert callback.usage_metadata == {"chef": answer.usage_metadata}
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream messages", "astream messages"])
def test_usage_of_an_agent_is_counted_once(name: str) -> None:
    """Defect 11: each turn of it, and the same as its messages say."""
    chef = Chef()
    agent = agent_of(chef_chat(chef))
    config: RunnableConfig = {"configurable": {"thread_id": "table 4"}}
    with get_usage_metadata_callback() as callback:
        entered(GRAPH[name], agent, {"messages": [("human", QUESTION)]}, config)
    messages = [each for each in agent.get_state(config).values["messages"] if isinstance(each, AIMessage)]
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total
    assert len(messages) == 2
    assert sum(each.usage_metadata["total_tokens"] for each in messages if each.usage_metadata) == chef.log.total


def test_usage_splits_what_was_kept_discarded_and_judged() -> None:
    chef = Chef()
    answer = chef_chat(chef).invoke(QUESTION)
    usage = answer.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] == sum(each["input_tokens"] for each in chef.log.usages)
    assert usage["output_tokens"] == sum(each["output_tokens"] for each in chef.log.usages)
    # "Warm the soup.", "Warm the soup. xyzzy!" and four letters
    assert dict(usage["output_token_details"]) == {"kept": 3, "discarded": 4, "judging": 4}


def test_usage_of_an_answer_that_is_refused_is_counted_too() -> None:
    chef = Chef(is_hopeless=True)
    with get_usage_metadata_callback() as callback:
        chef_chat(chef).invoke(QUESTION)
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total > 0


class FlakyChef(Chef):
    """Its first judgement fails."""

    _has_failed: list[bool] = PrivateAttr(default_factory=list)

    def judge(self, messages: Sequence[BaseMessage]) -> AIMessage:
        if not self._has_failed:
            self._has_failed.append(True)
            raise ConnectionError("Try again.")
        return super().judge(messages)


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
def test_usage_of_an_answer_that_was_begun_anew_is_counted_with_that_of_the_failed_one(name: str) -> None:
    """Defect 11: everything that was run, once."""
    chef = FlakyChef()
    with get_usage_metadata_callback() as callback:
        called(("chat", name), chef_chat(chef, max_retries=1), None)
    drafts = [messages for messages, _ in chef.log.asked if not is_judgement(messages)]
    assert len(drafts) == 3  # the first is drawn again
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
def test_usage_of_an_answer_that_failed_again_and_is_refused_is_counted(name: str) -> None:
    """Defect 11."""

    class LeavingChef(Chef):
        def judge(self, messages: Sequence[BaseMessage]) -> AIMessage:
            raise ConnectionError("Try again.")

    chef = LeavingChef()
    with get_usage_metadata_callback() as callback:
        called(("chat", name), chef_chat(chef, max_retries=2, on_error="refuse"), None)
    assert len(chef.log.asked) == 3
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
def test_what_a_judging_function_asks_a_model_is_counted(name: str) -> None:
    """Defect 11: nobody else would."""
    chef, adviser = Chef(), Chef()

    def judge(transcript: str) -> float:
        adviser.invoke(transcript)
        return 1.0

    with get_usage_metadata_callback() as callback:
        called(("chat", name), chef_chat(chef, judge=judge), None)
    assert adviser.log.total > 0
    assert callback.usage_metadata["chef"]["total_tokens"] == chef.log.total + adviser.log.total


@pytest.mark.parametrize("name", ["invoke", "ainvoke", "stream", "astream"])
def test_a_budget_holds_for_all_attempts_together(name: str) -> None:
    class LeavingChef(Chef):
        def judge(self, messages: Sequence[BaseMessage]) -> AIMessage:
            raise ConnectionError("Try again.")

    one, many = LeavingChef(), LeavingChef()
    called(("chat", name), chef_chat(one, on_error="refuse"), None)
    budget = one.log.total + 1  # one attempt, and less than a second one
    limits = {"max_forward_tokens": budget, "max_retries": 9, "on_error": "refuse", "on_unsatisfied": "refuse"}
    called(("chat", name), chef_chat(many, **limits), None)
    assert many.log.total <= 2 * one.log.total  # it is overshot by one step at most


def test_usage_that_a_model_does_not_tell_is_not_made_up() -> None:
    with get_usage_metadata_callback() as callback:
        answer = chef_chat(Chef(tells_usage=False)).invoke(QUESTION)
    assert answer.usage_metadata is None
    assert callback.usage_metadata == {}


def test_a_search_over_token_sets_is_counted_once() -> None:
    with get_usage_metadata_callback() as callback:
        answer = kitchen_chat().invoke(QUESTION)
        list(kitchen_chat().stream(QUESTION))
    usage = answer.usage_metadata
    assert usage is not None
    assert callback.usage_metadata["kitchen"]["total_tokens"] == 2 * usage["total_tokens"]
