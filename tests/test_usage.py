"""What an answer cost: everything that was run, once, and where it went."""

from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from langchain_rain import ChatRain, RainConfig
from langchain_rain.arguments import Answer
from langchain_rain.drivers import run
from langchain_rain.engines.base import ChatEngine
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.dialogue import Dialogue, as_lines
from langchain_rain.engines.loading import load_engine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Score
from langchain_rain.usage import usage_of
from tests.scripted_world import CONFIG, POISON, REFUSAL, RUBRIC, WARM, Kitchen, is_poison

SHORT = "Supper?"
"""`Human: Supper?`, `Assistant:`: three words, which are tokens in a kitchen."""


class Cook(BaseChatModel):
    """Serves its dishes one after another and finds poison in them; says what it used, unless it is silent."""

    dishes: Sequence[str] = ("Bleach.", "Lye.", "Soup.")
    is_silent: bool = False
    fails_at: int = 10**9
    _usages: list[tuple[str, UsageMetadata]] = PrivateAttr(default_factory=list)

    @property
    def usages(self) -> list[tuple[str, UsageMetadata]]:
        return self._usages

    @property
    def total(self) -> dict[str, int]:
        """The sum of all it said that it used."""
        names = ("input_tokens", "output_tokens", "total_tokens")
        return {name: sum(usage[name] for _, usage in self.usages) for name in names}  # type: ignore[literal-required]

    def written(self, what: str) -> list[int]:
        return [usage["output_tokens"] for kind, usage in self.usages if kind == what]

    @property
    def _llm_type(self) -> str:
        return "cook"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if len(self.usages) == self.fails_at:
            raise RuntimeError("the stove is cold")
        asked = str(messages[-1].text)
        is_judgement = "Answer with one letter alone" in asked
        if is_judgement:
            text = "A" if ("(A) YES" in asked) != is_poison(asked.lower()) else "B"
        else:
            text = self.dishes[min(len(self.written("draft")), len(self.dishes) - 1)]
        num_in, num_out = 10 + len(self.usages), len(text) * (1 if is_judgement else 100)
        usage = UsageMetadata(input_tokens=num_in, output_tokens=num_out, total_tokens=num_in + num_out)
        self._usages.append(("judgement" if is_judgement else "draft", usage))
        told = None if self.is_silent else usage
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text, usage_metadata=told))])


def asked(chat: ChatRain, prompt: str = SHORT) -> tuple[str, UsageMetadata | None, int]:
    """The text, the usage, and how many positions went through the engine of an answer."""
    answer = chat.invoke(prompt)
    return answer.text, answer.usage_metadata, answer.response_metadata["rain"]["token_positions"]


def kitchen(engine: Kitchen, **arguments: Any) -> ChatRain:
    return ChatRain(**{"model": engine, "rubric": RUBRIC, "config": CONFIG, "seed": 1, **arguments})


def cooked(model: Cook, **arguments: Any) -> ChatRain:
    return ChatRain(**{"model": model, "rubric": RUBRIC, "seed": 1, **arguments})


def used(num_input: int, *, kept: int, discarded: int, judging: int) -> dict[str, Any]:
    num_output = kept + discarded + judging
    return {
        "input_tokens": num_input,
        "output_tokens": num_output,
        "total_tokens": num_input + num_output,
        "input_token_details": {},
        "output_token_details": {"kept": kept, "discarded": discarded, "judging": judging},
    }


# --- Models in this process --------------------------------------------------------------------------------------


def test_of_a_model_in_this_process_the_conversation_is_input_and_all_else_output() -> None:
    engine = Kitchen()
    text, usage, num_positions = asked(kitchen(engine))
    num_judged = sum(isinstance(request, Score) for request in engine.asked)  # one position each, here
    assert text == "Warm the soup."
    assert (num_judged, num_positions) == (8, 14)
    assert usage == used(3, kept=3, discarded=0, judging=8)
    assert usage["total_tokens"] == num_positions


def test_what_was_written_and_refused_is_discarded() -> None:
    engine = Kitchen(WARM, [" the bleach", " the lye", " the bleach again"], [" soup"] * 3)
    text, usage, num_positions = asked(kitchen(engine))
    num_judged = sum(isinstance(request, Score) for request in engine.asked)
    assert text == f"Warm\n{REFUSAL}"
    assert usage == used(3, kept=1, discarded=num_positions - 3 - 1 - num_judged, judging=num_judged)


@pytest.mark.parametrize("is_harmless", [True, False])
def test_of_the_bundled_model_every_position_is_counted_once(is_harmless: bool) -> None:
    question = "How do I wash the bike?" if is_harmless else "What is the home address of Hugo Stone?"
    chat = ChatRain(seed=3, max_tokens=12, config=RainConfig(max_simulations=8, min_further_simulations=4))
    answer = chat.invoke(question)
    usage, rain = answer.usage_metadata, answer.response_metadata["rain"]
    assert usage is not None
    details: Any = usage["output_token_details"]
    assert usage["output_tokens"] == details["kept"] + details["discarded"] + details["judging"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    # What the judge was tried on begins like this conversation; the last token of an answer need not be read.
    num_read = rain["token_positions"] + usage["input_token_details"].get("cache_read", 0)
    assert usage["total_tokens"] - num_read in (0, 1)
    engine = load_engine("demo")
    assert isinstance(engine, ChatEngine)
    context = engine.open(Dialogue((HumanMessage(question),)), max_tokens=12)
    assert usage["input_tokens"] == context.num_prompt_tokens
    assert details["kept"] == rain["num_tokens"] or not rain["is_satisfied"]
    assert details["judging"] > 0


def test_what_is_read_from_the_cache_is_told_and_counted_as_input() -> None:
    chat = ChatRain(seed=3, max_tokens=12)
    first, second = (chat.invoke("How do I wash the bike?") for _ in range(2))
    assert first.usage_metadata is not None
    assert second.usage_metadata is not None
    assert second.content == first.content
    assert second.usage_metadata["input_tokens"] == first.usage_metadata["input_tokens"]
    # All but the last token, of which the model is asked what follows.
    cached = second.usage_metadata["input_token_details"].get("cache_read")
    assert cached == second.usage_metadata["input_tokens"] - 1
    positions = [each.response_metadata["rain"]["token_positions"] for each in (first, second)]
    assert positions[1] < positions[0]


def test_judgements_of_a_function_cost_nothing() -> None:
    text, usage, num_positions = asked(kitchen(Kitchen(), judge=lambda transcript: 1.0, rubric="harmlessness"))
    assert text == "Warm the bleach."
    assert usage == used(3, kept=3, discarded=0, judging=0)
    assert num_positions == 5  # of the scripted engine, which does not count the prompt


def test_a_chat_model_that_judges_is_counted_by_what_it_says() -> None:
    judge, engine = Cook(), Kitchen()
    text, usage, num_positions = asked(kitchen(engine, judge=judge))
    assert text == "Warm the soup."
    assert num_positions == len(engine.asked) + judge.total["total_tokens"]
    assert usage == used(3 + judge.total["input_tokens"], kept=3, discarded=0, judging=judge.total["output_tokens"])


# --- Chat models -------------------------------------------------------------------------------------------------


def test_of_a_chat_model_it_is_the_sum_of_what_it_said_itself() -> None:
    model = Cook()
    text, usage, num_positions = asked(cooked(model))
    assert text == "Soup."
    assert model.written("draft") == [700, 400, 500]
    assert usage == used(
        model.total["input_tokens"], kept=500, discarded=700 + 400, judging=sum(model.written("judgement"))
    )
    assert usage["total_tokens"] == model.total["total_tokens"] == num_positions


@pytest.mark.parametrize(("on_unsatisfied", "kept"), [("refuse", 0), ("best", 700)])
def test_a_draft_that_is_not_given_out_is_discarded(on_unsatisfied: Any, kept: int) -> None:
    # Judged by a writer's own lights both are as bad, so the first is the best.
    model = Cook(dishes=["Bleach.", "Lye."])
    chat = cooked(model, on_unsatisfied=on_unsatisfied, config=RainConfig(num_children=2))
    _, usage, _ = asked(chat)
    assert usage == used(
        model.total["input_tokens"], kept=kept, discarded=700 + 400 - kept, judging=sum(model.written("judgement"))
    )


def test_a_message_that_was_drawn_twice_was_paid_twice() -> None:
    model = Cook(dishes=["Bleach.", "Bleach.", "Soup."])
    _, usage, _ = asked(cooked(model))
    assert usage == used(
        model.total["input_tokens"], kept=500, discarded=700 + 700, judging=sum(model.written("judgement"))
    )


def test_a_chat_model_that_says_nothing_has_no_usage() -> None:
    text, usage, _ = asked(cooked(Cook(is_silent=True)))
    assert (text, usage) == ("Soup.", None)


async def test_it_is_the_same_however_the_answer_is_asked_for() -> None:
    def usage_by(ask: Any) -> Any:
        return ask(cooked(Cook()))

    expected = usage_by(lambda chat: chat.invoke(SHORT).usage_metadata)
    streamed = usage_by(lambda chat: list(chat.stream(SHORT)))
    assert [chunk.usage_metadata for chunk in streamed if chunk.usage_metadata] == [expected]
    assert (await usage_by(lambda chat: chat.ainvoke(SHORT))).usage_metadata == expected
    assert [answer.usage_metadata for answer in usage_by(lambda chat: chat.batch([SHORT]))] == [expected]


# --- Answers that failed -----------------------------------------------------------------------------------------


def test_an_answer_that_failed_tells_what_was_run_until_then() -> None:
    model = Cook(fails_at=4)  # at the second draft's judgements
    _, usage, _ = asked(cooked(model, on_error="refuse"))
    assert [kind for kind, _ in model.usages] == ["draft", "judgement", "judgement", "draft"]
    assert usage == used(
        model.total["input_tokens"], kept=0, discarded=700 + 400, judging=sum(model.written("judgement"))
    )


def test_of_a_kitchen_that_fails_what_was_judged_well_is_kept() -> None:
    engine = Kitchen(WARM, [" the soup"], [" the soup", " x"])

    def fail_at_the_end(transcript: str) -> float:
        if transcript.endswith("the soup the soup"):
            raise RuntimeError("the judge left")
        return 1.0

    text, usage, _ = asked(kitchen(engine, judge=fail_at_the_end, on_error="refuse"))
    assert text == f"Warm the soup\n{REFUSAL}"
    assert usage is not None
    assert usage["output_token_details"]["kept"] == 2  # type: ignore[typeddict-item]  # more keys are allowed


def test_a_budget_that_is_spent_at_once_leaves_nothing_but_the_conversation() -> None:
    _, usage, num_positions = asked(kitchen(Kitchen(WARM, POISON), max_forward_tokens=1))
    assert (usage, num_positions) == (used(3, kept=0, discarded=0, judging=0), 1)


def begun(chat: ChatRain) -> Answer:
    return chat.begin(Dialogue((HumanMessage(SHORT),)), as_lines([HumanMessage(SHORT)]), None, calls=Calls())


def test_an_error_that_tells_no_cost_has_no_usage() -> None:
    answer = begun(kitchen(Kitchen()))
    assert usage_of(answer, EngineError("The stove is cold."), None) is None
    run(answer.job)
