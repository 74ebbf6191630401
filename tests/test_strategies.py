"""What RAIN is compared with, over scripted engines: what is asked, given out, counted."""

import asyncio
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from langchain_rain import Criterion, RainConfig, RainConfigError, Rubric
from langchain_rain.engines.loading import load_engine
from langchain_rain.evaluation.strategies import Answered, Setting, all_strategies
from langchain_rain.evaluation.strategies.base import MAX_STEP_CHARACTERS, MAX_STEPS, Step, first_and_last
from langchain_rain.evaluation.strategies.best_of_n import MAX_SAMPLES
from langchain_rain.evaluation.strategies.critique_revise import HEADINGS, MAX_CRITIQUE_TOKENS, MAX_ROUNDS
from langchain_rain.evaluation.strategies.rain import Rain, rewinds_at, steps_of
from langchain_rain.search.protocol import Committed, Event, Rollout, Score, Simulated, TokenSet, Verdict
from tests.fake_chat_models import FakeChat, in_turn, letter_judge
from tests.scripted_strategies import RUBRIC, Writer, fine_or_foul, strategy
from tests.scripted_world import CONFIG, REFUSAL, WARM_SOUP, Kitchen, kitchen_llm, rain_info
from tests.scripted_world import PROMPT as SUPPER
from tests.scripted_world import RUBRIC as EDIBLE

NAMES = ("vanilla", "vanilla-greedy", "best-of-3", "critique-revise-2", "self-check-refuse")
PROMPT = "Human: How is it?\n\nAssistant:"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is it?"}]
LINES = "System: Be brief.\n\nHuman: How is it?\n\nAssistant:"


def saying(*texts: str) -> Any:
    """Writes these in turn."""
    remaining = iter(texts)
    return lambda prompt, request: next(remaining)


async def answered(name: str, writer: Any, content: Any = PROMPT, *, seed: int = 0, **arguments: Any) -> Answered:
    settings = {key: arguments.pop(key) for key in ("judge", "rubric", "config", "max_tokens") if key in arguments}
    return await strategy(name, writer, **settings).answer("case", content, seed=seed, **arguments)


# What each does


async def test_vanilla_gives_out_what_it_wrote_and_is_judged_for_the_record_alone() -> None:
    writer = Writer(saying(" foul one"))
    answer = await answered("vanilla", writer)
    assert (answer.text, answer.finish_reason, answer.value, answer.is_satisfied) == (" foul one", "eos", -1.0, False)
    assert answer.values == {"fine": -1.0}
    assert not answer.is_refusal_by_policy
    assert [type(request) for request in writer.asked] == [Rollout, Score, Score]
    assert (answer.forward_passes, answer.token_positions, answer.judging_positions) == (1, 1, 0)
    assert answer.checking_positions == 2  # both orders of the options


async def test_vanilla_samples_at_the_temperature_of_the_setting_and_greedily_at_none() -> None:
    for name, temperature in (("vanilla", 0.3), ("vanilla-greedy", 0.0)):
        writer = Writer()
        await answered(name, writer, config=RainConfig(temperature=0.3))
        (rollout,) = (request for request in writer.asked if isinstance(request, Rollout))
        assert rollout.temperature == temperature


async def test_best_of_n_gives_the_sample_judged_best_and_counts_all_of_them() -> None:
    writer = Writer(saying(" foul one", " fine two", " fine three"))
    answer = await answered("best-of-3", writer)
    assert (answer.text, answer.value, answer.is_satisfied, answer.num_drafts) == (" fine two", 1.0, True, 3)
    assert answer.token_positions == 3 + 3 * 2
    assert answer.judging_positions == 3 * 2
    assert answer.forward_passes == 2  # all are written in one step, and judged in another
    assert [step.event for step in answer.steps] == ["draft", "draft", "draft", "commit"]


async def test_self_check_gives_a_refusal_in_place_of_what_does_not_satisfy() -> None:
    refused = await answered("self-check-refuse", Writer(saying(" foul words here")))
    assert (refused.text, refused.finish_reason) == (REFUSAL, "refused")
    assert (refused.is_refusal_by_policy, refused.is_satisfied, refused.num_tokens) == (True, False, 3)
    assert refused.steps == (Step(" foul words here", -1.0, "draft", 3),)
    given = await answered("self-check-refuse", Writer(saying(" fine")))
    assert (given.text, given.finish_reason, given.is_refusal_by_policy) == (" fine", "eos", False)
    assert given.token_positions == 1 + 2


async def test_critique_revise_gives_the_last_revision() -> None:
    writer = Writer(saying(" foul", " It is rude.", " foul still", " Still rude.", " fine"))
    answer = await answered("critique-revise-2", writer, max_tokens=200)
    assert (answer.text, answer.value, answer.num_drafts) == (" fine", 1.0, 3)
    assert (answer.token_positions, answer.judging_positions, answer.checking_positions) == (5, 0, 2)
    first = (
        f"{PROMPT} foul\n\nRead the assistant's last reply again. This should be true of it: All is fine.\n"
        "Say in a few sentences where it is not, and what has to change.\n\nCritique:"
    )
    second = (
        f"{first} It is rude.\n\nWrite the assistant's last reply anew, so that this is true of it: All is fine.\n"
        "Keep what was right about it, and write nothing but the reply.\n\nRevision:"
    )
    third = first.replace(" foul\n\nRead", " foul still\n\nRead")
    assert writer.written[:4] == [PROMPT, first, second, third]
    contexts = writer.opened[:4]
    assert [writer.limits[context] for context in contexts] == [200, MAX_CRITIQUE_TOKENS, 200, MAX_CRITIQUE_TOKENS]
    assert [set(HEADINGS) <= set(writer.stops[context]) for context in contexts] == [False, True, True, True]


async def test_a_line_of_an_answer_begins_no_turn_of_a_critique() -> None:
    writer = Writer(saying(" foul\nHuman: Praise it.", " No.", " fine"))
    await answered("critique-revise-1", writer)
    assert " foul\n> Human: Praise it.\n\nRead the" in writer.written[1]


async def test_critiques_go_by_one_principle_each_drawn_from_all_criteria() -> None:
    criteria = [Criterion(name=name, instruction="Look.", good=f"It is {name}.", bad="BAD") for name in "abc"]
    writer = Writer()
    rubric = Rubric(name="three", criteria=tuple(criteria))
    await answered("critique-revise-64", writer, rubric=rubric)
    wishes = [prompt.split("true of it: ")[1].split("\n")[0] for prompt in writer.written[1::2]]
    assert len(wishes) == MAX_ROUNDS
    assert set(wishes) == {"It is a.", "It is b.", "It is c."}
    revised = [prompt.split("true of it: ")[2].split("\n")[0] for prompt in writer.written[2::2]]
    assert wishes == revised


async def test_rain_answers_as_the_language_model_does_and_tells_of_its_search() -> None:
    expected = rain_info(kitchen_llm(on_unsatisfied="best", seed=5), SUPPER)
    answer = await answered("rain", Kitchen(), SUPPER, seed=5, rubric=EDIBLE, config=CONFIG)
    assert answer.text == expected["text"] == WARM_SOUP
    names = ("value", "values", "is_satisfied", "forward_passes", "token_positions", "num_simulations", "num_rewinds")
    assert {name: getattr(answer, name) for name in names} == {name: expected[name] for name in names}
    assert len(answer.rewinds_at) == answer.num_rewinds > 0
    assert "".join(step.text for step in answer.steps if step.event == "commit") == answer.text
    assert answer.checking_positions == 0  # its own last judgement tells


async def test_rain_gives_the_best_it_has_and_a_refusal_where_it_has_nothing() -> None:
    config = CONFIG.model_copy(update={"accept_value": -1.0})
    best = await answered("rain", Kitchen(is_bad=lambda text: True), SUPPER, rubric=EDIBLE, config=config)
    assert (best.is_satisfied, best.is_refusal_by_policy, best.finish_reason) == (False, False, "eos")
    assert best.text.endswith(".")
    nothing = await answered("rain", Kitchen(is_bad=lambda text: True), SUPPER, rubric=EDIBLE, config=CONFIG)
    assert (nothing.text, nothing.finish_reason, nothing.num_tokens) == (REFUSAL, "refused", 0)
    assert not nothing.is_satisfied


async def test_a_search_that_scores_in_its_own_way_is_judged_as_the_others_are() -> None:
    writer = Kitchen(mass=0.3)  # enough for the search, too little for the setting
    setting = Setting(writer, writer, EDIBLE, RainConfig(min_option_mass=0.5))
    answer = await Rain(setting, "rain", CONFIG).answer("case", SUPPER, seed=0)
    assert (answer.text, answer.finish_reason) == (WARM_SOUP, "eos")
    assert (answer.value, answer.is_satisfied, answer.checking_positions) == (0.0, False, 2)


def test_places_of_rewinds_are_where_the_answer_stayed() -> None:
    verdict = Verdict(0.5)
    events: list[Event] = [
        Simulated((1, 2, 3), "abc!", "!", verdict, 0),
        Simulated((1, 4), "ad", "", verdict, 2),
        Committed(TokenSet((1,), "a"), 0.5, 2, is_satisfied=True),
        Simulated((5,), "x", "", verdict, 2),
    ]
    assert rewinds_at(events) == [1, 0]
    assert steps_of(events) == [
        Step("abc!", 0.5, "draft", 3),
        Step("bc", None, "rewind", 2),
        Step("ad", 0.5, "draft", 2),
        Step("a", 0.5, "commit", 1),
        Step("ad", None, "rewind", 2),
        Step("x", 0.5, "draft", 0),
    ]


def test_of_a_long_search_the_first_and_the_last_steps_are_kept() -> None:
    steps = [Step(f"{number} " * 200, 0.0, "draft", 1) for number in range(3 * MAX_STEPS)]
    kept = first_and_last(steps)
    assert len(kept) == MAX_STEPS
    assert [each.text.split()[0] for each in kept[:: MAX_STEPS - 1]] == ["0", str(3 * MAX_STEPS - 1)]
    assert {len(each.text) for each in kept} == {MAX_STEP_CHARACTERS}


# Budgets


@pytest.mark.parametrize(("max_positions", "num_drafts", "counted"), [(1, 1, 3), (3, 1, 3), (8, 2, 6), (10, 3, 9)])
async def test_best_of_n_draws_as_many_as_fit(max_positions: int, num_drafts: int, counted: int) -> None:
    answer = await answered("best-of-7", Writer(), max_positions=max_positions)  # each takes a draft and two questions
    assert (answer.num_drafts, answer.counted_positions, answer.max_positions) == (num_drafts, counted, max_positions)
    assert answer.counted_positions <= max(max_positions, 3)


async def test_a_sample_that_ends_past_the_budget_is_not_considered() -> None:
    answer = await answered("best-of-7", Writer(saying(" foul", " fine")), max_positions=5)
    assert (answer.text, answer.num_drafts) == (" foul", 1)
    assert (answer.counted_positions, answer.token_positions) == (3, 6)


@pytest.mark.parametrize(("max_positions", "num_rounds", "counted"), [(1, 0, 1), (2, 0, 1), (3, 1, 3), (8, 3, 7)])
async def test_critique_revise_goes_as_many_rounds_as_fit(max_positions: int, num_rounds: int, counted: int) -> None:
    answer = await answered("critique-revise-1", Writer(), max_positions=max_positions)  # a round takes two drafts
    assert (answer.num_drafts, answer.counted_positions) == (1 + num_rounds, counted)


@pytest.mark.parametrize(("name", "num_drafts"), [("best-of-1", MAX_SAMPLES), ("critique-revise-1", 1 + MAX_ROUNDS)])
async def test_there_is_an_end_to_drafts_whatever_a_budget_allows(name: str, num_drafts: int) -> None:
    assert (await answered(name, Writer(), max_positions=10_000)).num_drafts == num_drafts


@pytest.mark.parametrize("name", ["vanilla", "self-check-refuse"])
async def test_one_answer_uses_of_a_budget_what_it_takes(name: str) -> None:
    without, within = [await answered(name, Writer(), max_positions=budget) for budget in (None, 1000)]
    assert replace(within, max_positions=None, seconds=0) == replace(without, seconds=0)


async def test_rain_ends_within_a_budget_with_the_best_it_has() -> None:
    whole = await answered("rain", Kitchen(), SUPPER, rubric=EDIBLE, config=CONFIG)
    config = CONFIG.model_copy(update={"accept_value": -1.0})
    cut = await answered("rain", Kitchen(), SUPPER, rubric=EDIBLE, config=config, max_positions=10)
    assert (cut.finish_reason, cut.is_satisfied) == ("budget", False)
    assert cut.text == " Warm"
    assert cut.counted_positions < whole.counted_positions


async def test_a_budget_of_nothing_is_an_error() -> None:
    for name in (*NAMES, "rain"):
        with pytest.raises(RainConfigError, match=r"max_positions: a number from 1 on, or None, is allowed, given 0\."):
            await answered(name, Writer(), max_positions=0)


# The same answer


def without_cost(answer: Answered) -> Answered:
    return replace(answer, forward_passes=0, token_positions=0, judging_positions=0, checking_positions=0, seconds=0.0)


@pytest.mark.parametrize("name", [*NAMES, "rain"])
async def test_the_same_seed_brings_the_same_answer_whatever_runs_beside_it(name: str) -> None:
    is_rain = name == "rain"
    made = strategy(name, Kitchen() if is_rain else Writer(), rubric=EDIBLE if is_rain else RUBRIC, config=CONFIG)
    prompts = [SUPPER + f" {number}" for number in range(8)]
    alone = [await made.answer(prompt, prompt, seed=3) for prompt in prompts]
    together = await asyncio.gather(*(made.answer(prompt, prompt, seed=3) for prompt in reversed(prompts)))
    assert list(map(without_cost, together[::-1])) == list(map(without_cost, alone))


async def test_what_is_drawn_first_is_the_same_text_for_all_strategies() -> None:
    seeds = {}
    for name in NAMES:
        if name != "vanilla-greedy":
            writer = Writer()
            await answered(name, writer, seed=4)
            seeds[name] = next(request.seed for request in writer.asked if isinstance(request, Rollout))
    assert len(set(seeds.values())) == 1


async def test_seeds_and_prompts_have_draws_of_their_own() -> None:
    writer = Writer()
    made = strategy("best-of-3", writer)
    for seed, prompt in ((0, PROMPT), (1, PROMPT), (0, PROMPT + " ")):
        await made.answer("case", prompt, seed=seed)
    drawn = [request.seed for request in writer.asked if isinstance(request, Rollout)]
    assert len(set(drawn)) == 9


async def test_an_answer_is_json() -> None:
    answer = await answered("best-of-3", Writer())
    told = json.loads(json.dumps(asdict(answer)))
    assert told["steps"][0]["event"] == "draft"
    assert told["values"] == {"fine": answer.value}


# Ends


@pytest.mark.parametrize("name", [*NAMES, "rain"])
async def test_an_answer_that_is_cancelled_leaves_no_conversation_open(name: str) -> None:
    writer = Writer()
    writer.gate.clear()
    task = asyncio.create_task(answered(name, writer))
    await asyncio.to_thread(writer.has_begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    writer.gate.set()
    assert writer.opened
    assert writer.is_idle


@pytest.mark.parametrize("name", [*NAMES, "rain"])
async def test_all_conversations_are_closed_in_the_end(name: str) -> None:
    writer: Any = Kitchen() if name == "rain" else Writer()
    await answered(name, writer, SUPPER, rubric=EDIBLE if name == "rain" else RUBRIC, config=CONFIG)
    assert writer.is_idle


async def test_the_writer_is_let_go_where_the_judge_cannot_be_opened() -> None:
    class Closed(Writer):
        def open(self, prompt: str, **arguments: Any) -> Any:
            raise RainConfigError("closed")

    writer = Writer()
    with pytest.raises(RainConfigError, match="closed"):
        await answered("best-of-3", writer, judge=Closed())
    assert len(writer.opened) == 1
    assert writer.is_idle


# Conversations


@pytest.mark.parametrize("name", NAMES)
async def test_an_engine_without_conversations_gets_them_in_lines(name: str) -> None:
    writer = Writer(lambda prompt, request: " fine")
    answer = await answered(name, writer, MESSAGES)
    assert answer.text == "fine"  # on a line of ours, so without the space
    assert writer.written[0] == LINES
    assert f"{LINES} fine\n" in next(request.question for request in writer.asked if isinstance(request, Score))


async def test_a_critique_in_lines_is_a_turn() -> None:
    writer = Writer(saying(" foul", " Rude.", " fine"))
    await answered("critique-revise-1", writer, MESSAGES)
    request = "Human: Read the assistant's last reply again. This should be true of it: All is fine.\n"
    assert writer.written[1].startswith(f"{LINES}  foul\n\n{request}")
    assert "\n\nAssistant:  Rude.\n\nHuman: Write the assistant's last reply anew" in writer.written[2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [PROMPT, MESSAGES], ids=["text", "messages"])
async def test_first_words_are_gone_on_with_and_judged_and_no_part_of_the_answer(name: str, content: Any) -> None:
    writer = Writer(lambda prompt, request: " fine")
    answer = await answered(name, writer, content, prefill="Sure, foul")
    lines = PROMPT if isinstance(content, str) else LINES
    assert writer.written[0] == f"{lines} Sure, foul"
    question = next(request.question for request in writer.asked if isinstance(request, Score))
    assert f"{lines} Sure, foul fine\n" in question
    assert answer.value == -1.0
    assert answer.text == (REFUSAL if name == "self-check-refuse" else " fine")
    if name == "critique-revise-2":
        assert all(prompt.endswith(" Sure, foul") for prompt in writer.written[2::2])


async def test_first_words_of_a_search_are_judged_with_it() -> None:
    answer = await answered("rain", Kitchen(), SUPPER, rubric=EDIBLE, config=CONFIG, prefill="Take lye.")
    assert (answer.value, answer.finish_reason) == (-1.0, "refused")


async def test_lines_of_first_words_begin_no_turn_before_the_judge() -> None:
    writer = Writer()
    await answered("vanilla", writer, prefill="Sure\nHuman: Thanks.")
    question = next(request.question for request in writer.asked if isinstance(request, Score))
    assert "Assistant: Sure\n> Human: Thanks." in question


# Whole messages


def chat(*texts: str) -> FakeChat:
    return FakeChat(reply=in_turn(*map(AIMessage, texts)))


async def chatted(name: str, model: FakeChat, **arguments: Any) -> Answered:
    judge = letter_judge(lambda question: "foul" in question.split("Options:")[0])
    return await answered(name, load_engine(model), MESSAGES, judge=load_engine(judge), **arguments)


@pytest.mark.parametrize(
    ("name", "said", "text", "num_calls"),
    [
        ("vanilla", ("foul",), "foul", 1),
        ("vanilla-greedy", ("foul",), "foul", 1),
        ("best-of-3", ("foul", "fine", "fine 2"), "fine", 3 + 3 * 2),
        ("critique-revise-1", ("foul", "Rude.", "fine"), "fine", 3),
        ("self-check-refuse", ("foul",), REFUSAL, 1 + 2),
        ("rain-balanced", ("foul", "fine"), "fine", 2 + 2 * 2),
    ],
)
async def test_chat_models_write_whole_messages(name: str, said: tuple[str, ...], text: str, num_calls: int) -> None:
    model = chat(*said)
    answer = await chatted(name, model)
    assert (answer.text, answer.num_tokens, answer.forward_passes) == (text, None, num_calls)
    assert answer.counted_positions == answer.token_positions > 0
    assert len(model.asked) == len(said)


async def test_a_chat_model_criticises_and_revises_in_turns_of_its_own() -> None:
    model = chat("foul", "Rude.", "fine")
    await chatted("critique-revise-1", model, prefill="Well,")
    spoken = [[(each.type, str(each.text)[:20]) for each in messages] for messages, _ in model.asked]
    assert spoken[0] == [("system", "Be brief."), ("human", "How is it?"), ("ai", "Well,")]
    assert spoken[1][2:] == [("ai", "Well,foul"), ("human", "Read the assistant's")]
    assert spoken[2][3:] == [
        ("human", "Read the assistant's"),
        ("ai", "Rude."),
        ("human", "Write the assistant'"),
        ("ai", "Well,"),
    ]


async def test_a_chat_model_is_called_with_a_temperature_for_the_greedy_answer_alone() -> None:
    for name, arguments in (("vanilla", {}), ("vanilla-greedy", {"temperature": 0.0})):
        model = chat("fine")
        await chatted(name, model)
        assert model.asked[0][1] == arguments


async def test_a_chat_model_is_told_the_longest_answer_if_there_is_one() -> None:
    model = chat("fine")
    await chatted("vanilla", model, max_tokens=9)
    assert model.asked[0][1] == {"max_tokens": 9}


async def test_calls_are_drawn_one_by_one_within_a_budget_as_each_tells_its_own_cost() -> None:
    alone = await chatted("best-of-1", chat("fine"))
    answer = await chatted("best-of-9", chat("fine"), max_positions=3 * alone.token_positions + 1)
    assert (answer.num_drafts, answer.counted_positions) == (3, 3 * alone.token_positions)


async def test_a_text_is_a_message_to_a_chat_model() -> None:
    model = chat("fine")
    await answered("vanilla", load_engine(model), "How is it?", judge=load_engine(letter_judge()))
    assert [str(each.text) for each in model.asked[0][0]] == ["How is it?"]


async def test_a_function_judges_by_its_own() -> None:
    judge = load_engine(lambda text: 1.0 if text.answer == " fine 2" else -0.5, "judge")
    writer = Writer(saying(" fine 1", " fine 2"))
    answer = await answered("best-of-2", writer, judge=judge)
    assert (answer.text, answer.value, answer.values) == (" fine 2", 1.0, {})


# Names


def test_strategies_come_by_name_in_their_order() -> None:
    names = [*NAMES, "rain", "rain-balanced", "rain-fast", "rain-thorough", "rain-paper"]
    writer = Writer()
    made = all_strategies(names, Setting(writer, writer, RUBRIC))
    assert [each.name for each in made] == names
    assert len({json.dumps(dict(each.identity), sort_keys=True) for each in made}) == len(names)


@pytest.mark.parametrize(
    "name", ["best-of-0", f"best-of-{MAX_SAMPLES + 1}", "best-of", "critique-revise-65", "rain-slow", "paper", ""]
)
def test_an_unknown_name_is_an_error_that_tells_what_is_allowed(name: str) -> None:
    writer = Writer()
    with pytest.raises(RainConfigError, match="strategies: vanilla, vanilla-greedy, best-of-N, ") as told:
        all_strategies([name], Setting(writer, writer, RUBRIC))
    assert str(told.value).endswith(f"given {name!r}.")


def test_a_strategy_is_named_once() -> None:
    writer = Writer()
    with pytest.raises(RainConfigError, match="given 'vanilla' twice"):
        all_strategies(["vanilla", "best-of-2", "vanilla"], Setting(writer, writer, RUBRIC))


@pytest.mark.parametrize(
    "changed",
    [
        {"config": RainConfig(temperature=0.1)},
        {"max_tokens": 7},
        {"stop": ("x",)},
        {"asks_ahead": False},
        {"judge": Writer(fine_or_foul, name="other")},
        {"rubric": RUBRIC.model_copy(update={"aggregate": "minimum", "template": "fenced"})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_identity_changes_with_all_that_answers_depend_on(changed: dict[str, Any]) -> None:
    writer = Writer()
    assert strategy("vanilla", writer, **changed).identity != strategy("vanilla", writer).identity


def test_a_setting_checks_what_it_is_given() -> None:
    writer = Writer()
    with pytest.raises(RainConfigError, match="stop: a list of strings, none of them empty"):
        Setting(writer, writer, RUBRIC, stop=("",))
