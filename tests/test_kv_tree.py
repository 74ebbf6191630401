"""The memory of the cache: what it holds, how it grows and shrinks, and what happens when room is short."""

import gc
import math
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rain.drivers import run
from langchain_rain.engines import admission, packing
from langchain_rain.engines.base import Cost
from langchain_rain.engines.kv_tree import TreeCache, TreeLayer, compacted, is_contiguous, resized
from langchain_rain.engines.packing import Feed, pack
from langchain_rain.engines.prefix_tree import PrefixTree
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.engines.wants import Place, Probability
from langchain_rain.engines.work import ScoreWork
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Context, Expand, Request, Score
from tests.asking_in_turn import ASKED_IN_TURN, Asked, assert_naive_in_turn, question, rollout
from tests.comparing import PROMPT, ROUNDING, answer, answer_and_cost, assert_same, counted_forward_passes, search_job
from tests.naive_engine import NaiveEngine
from tests.test_packing import grown
from tests.tiny_models import tiny_llama, tiny_tokenizer


def siblings(context: Context, *prefix: int, seed: int) -> Expand:
    return Expand(context, prefix, 8, 6, num_draws=7, top_k=10, temperature=1.0, seed=seed)


def cache_of(engine: TransformersEngine) -> TreeCache:
    cache: TreeCache = engine._runner._cache  # type: ignore[attr-defined]
    return cache


# --- Tensors -----------------------------------------------------------------------------------------------------


def test_memory_grows_by_doubling_up_to_the_limit() -> None:
    tree, (path,) = grown((7, 8))
    packed = pack(tree, [Feed(path, [])])
    cache = TreeCache()
    capacities = []
    for num_slots in (10, 9, 11, 50, 51, 70):
        cache.begin(packed, num_slots=num_slots, max_slots=70)
        capacities.append(cache.capacity)
    assert capacities == [10, 10, 20, 50, 70, 70]


def test_a_tensor_keeps_what_it_holds_when_it_grows_or_is_compacted() -> None:
    states = torch.zeros(7, 6, 2, 4)
    tensor = resized(None, 10, states)
    assert tensor.shape == (10, 2, 4)
    tensor += torch.arange(10)[:, None, None]
    larger = resized(tensor, 20, states)
    assert larger[:, 0, 0].tolist() == [*range(10), *([0] * 10)]
    smaller = compacted(larger, [2, 5, 9], 4)
    assert smaller is not None
    assert smaller[:, 1, 3].tolist() == [2, 5, 9, 0]
    assert compacted(None, [1], 4) is None


@pytest.mark.parametrize(
    ("slots", "expected"), [([3], True), ([3, 4, 5], True), ([3, 5], False), ([3, 5, 4, 6], False), ([4, 3], False)]
)
def test_slots_in_a_row_are_read_without_a_copy(slots: list[int], expected: bool) -> None:
    assert is_contiguous(np.array(slots)) is expected


def test_a_layer_says_how_many_slots_are_seen() -> None:
    cache = TreeCache()
    layer = TreeLayer(cache)
    assert layer.get_seq_length() == 0
    tree, (path,) = grown((7, 8))
    cache.begin(pack(tree, [Feed(path[:1], [])]), num_slots=2, max_slots=2)
    assert layer.get_seq_length() == 1
    assert layer.get_mask_sizes(query_length=1) == (1, 0)
    assert layer.get_max_length() == -1


# --- One tree for all --------------------------------------------------------------------------------------------


def test_what_conversations_share_is_computed_once_open_or_closed(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    first, second = engine.open(PROMPT, max_tokens=8), engine.open(PROMPT, max_tokens=8)
    _, cost = answer_and_cost(engine, rollout(first, max_tokens=1), rollout(second, max_tokens=1))
    assert cost.token_positions == first.num_prompt_tokens
    engine.close(first)
    engine.close(second)
    third = engine.open(PROMPT, max_tokens=8)
    assert answer_and_cost(engine, rollout(third, max_tokens=1))[1].token_positions == 1  # the last is asked about


def test_a_second_request_computes_nothing_of_the_rubric_and_system_prompt_it_shares(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    system, rubric = "System: Be kind and brief.\n\n", "Is what follows polite? An example: yes.\n\n"

    def ask(user: str) -> int:
        context = engine.open(f"{system}Human: {user}\n\nAssistant:", max_tokens=8)
        requests: list[Request] = [rollout(context, max_tokens=1), question(context, f"{rubric}Human: {user}\n\n")]
        _, cost = answer_and_cost(engine, *requests)
        engine.close(context)
        return cost.token_positions

    def num_tokens(text: str) -> int:
        return len(tokenizer(text).input_ids)

    num_first, num_second = ask("yes"), ask("no")
    ends = "Human: no\n\nAssistant:", "Human: no\n\nThe answer is: ("
    assert num_second == sum(num_tokens(end) - num_tokens("Human:") for end in ends)
    assert num_first > num_tokens(system) + num_tokens(rubric)


def test_a_search_leaves_nothing_behind_but_what_the_next_one_may_share(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    alone = run(search_job(engine))
    again = run(search_job(engine))
    assert_same(again.result, alone.result, tolerance=ROUNDING)
    assert again.cost.token_positions < alone.cost.token_positions / 2
    has_closed = threading.Event()
    engine.channel.post(has_closed.set)  # behind what the search has posted at its end
    assert has_closed.wait(timeout=60)
    assert not engine._conversations._open
    assert not engine._pending
    assert engine._runner._tree.num_held == 0  # type: ignore[attr-defined]


def test_memory_beyond_what_is_open_is_given_back(llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MIN_CACHE_TOKENS", 30)
    monkeypatch.setattr(admission, "CACHE_MARGIN", 0)
    engine, naive = TransformersEngine(llama, tokenizer), NaiveEngine(llama, tokenizer)
    engine._runner._tree.max_tokens = 30  # type: ignore[attr-defined]
    long, short = engine.open(PROMPT, max_tokens=40), engine.open("Human: yes", max_tokens=8)
    answer(engine, rollout(long, max_tokens=30), rollout(short))
    room = [3 * (long.num_prompt_tokens + 40), 3 * (short.num_prompt_tokens + 8)]
    before = engine.cache_info
    assert before.max_tokens == sum(room)
    held = [weakref.ref(tensor) for tensor in cache_of(engine).tensors]
    assert len(held) == 2 * llama.config.num_hidden_layers + 1
    engine.close(long)
    gc.collect()
    assert all(reference() is None for reference in held)
    after = engine.cache_info
    assert after.num_tokens <= after.max_tokens == room[1] == cache_of(engine).capacity
    assert after.num_bytes == before.num_bytes * room[1] // sum(room) or after.num_bytes < before.num_bytes
    naive_short = naive.open("Human: yes", max_tokens=8)
    assert_same(answer(engine, rollout(short, 40)), [naive.reply(rollout(naive_short, 40))], tolerance=ROUNDING)
    engine.close(short)
    engine.close(short)  # twice does no harm
    assert engine.cache_info.max_tokens == cache_of(engine).capacity == 30
    again = engine.open("Human: yes", max_tokens=8)
    assert_same(answer(engine, rollout(again, 40)), [naive.reply(rollout(naive_short, 40))], tolerance=ROUNDING)


def test_room_is_made_for_what_the_oldest_needs_where_no_limit_is_given(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MIN_CACHE_TOKENS", "CACHE_FACTOR"):
        monkeypatch.setattr(admission, name, 0)
    engine, naive = TransformersEngine(llama, tokenizer), NaiveEngine(llama, tokenizer)
    engine._runner._tree.max_tokens = 0  # type: ignore[attr-defined]
    requests = [siblings(each, seed=seed) for seed in (1, 2) for each in [engine.open(PROMPT, max_tokens=40)]]
    expected = [naive.reply(siblings(naive.open(PROMPT, max_tokens=40), seed=seed)) for seed in (1, 2)]
    assert_same(answer(engine, *requests), expected, tolerance=ROUNDING)


def test_of_many_judgements_at_once_the_ends_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_STEP_POSITIONS", 10_000)
    room, context = admission.Admission("engine", None), Context("engine", 1)
    room.open(context, 10)
    score = Score(context, "", "", ("A", "B"))
    tokens = [(*range(5990), *[number] * 10) for number in range(40)]
    room.admit({number: ScoreWork(score, each, [(1,), (2,)]) for number, each in enumerate(tokens)})
    assert room.tree.max_tokens == 2 * 6000 + 38 * admission.CACHE_MARGIN
    assert room.tree.num_held == 5990 + 40 * 10


def test_judgements_have_room_for_all_their_examples(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MIN_CACHE_TOKENS", 10)
    monkeypatch.setattr(admission, "CACHE_FACTOR", 1)
    monkeypatch.setattr(admission, "CACHE_MARGIN", 0)
    engine = TransformersEngine(llama, tokenizer)
    engine._runner._tree.max_tokens = 10  # type: ignore[attr-defined]
    context = engine.open("yes", max_tokens=1)
    text = "Is it warm? " * 20
    answer(engine, question(context, text))
    assert engine.cache_info.max_tokens == len(tokenizer(text + "The answer is: (").input_ids)
    assert answer_and_cost(engine, question(context, text))[1].token_positions == 1


# --- Limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["max_cache_tokens", "max_cache_bytes"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "many"])
def test_a_limit_that_is_no_positive_number_is_an_error_that_names_it(
    llama: Any, tokenizer: Any, argument: str, value: Any
) -> None:
    with pytest.raises(
        RainConfigError, match=rf"{argument}: a positive whole number or None is allowed, given {value!r}"
    ):
        TransformersEngine(llama, tokenizer, **{argument: value})


def test_less_memory_than_a_token_takes_is_an_error_that_names_both(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(RainConfigError, match=r"max_cache_bytes: the cache takes 1536 bytes a token, given 1535"):
        TransformersEngine(llama, tokenizer, max_cache_bytes=1535)


def test_a_question_longer_than_the_limit_is_an_error_that_names_both_and_the_others_go_on(
    llama: Any, tokenizer: Any
) -> None:
    engine, naive = TransformersEngine(llama, tokenizer, max_cache_tokens=30), NaiveEngine(llama, tokenizer)
    context, naive_context = engine.open(PROMPT, max_tokens=8), naive.open(PROMPT, max_tokens=8)
    text = "Is it warm? " * 20
    needed = len(tokenizer(text + "The answer is: (").input_ids)
    error, reply = answer(engine, question(context, text), rollout(context))
    assert isinstance(error, EngineError)
    assert f"needs {needed} tokens of cache for one request, more than max_cache_tokens=30 allows" in str(error)
    assert_same(reply, naive.reply(rollout(naive_context)), tolerance=ROUNDING)


def test_the_narrower_limit_counts(llama: Any, tokenizer: Any) -> None:
    wide, narrow = (
        TransformersEngine(llama, tokenizer, max_cache_tokens=tokens, max_cache_bytes=80 * 1536 + 7).cache_info
        for tokens in (1000, 50)
    )
    assert (wide.max_tokens, narrow.max_tokens) == (80, 50)


def test_a_search_with_next_to_no_cache_is_the_same_search_and_costs_more(llama: Any, tokenizer: Any) -> None:
    roomy = run(search_job(TransformersEngine(llama, tokenizer)))
    engine = TransformersEngine(llama, tokenizer, max_cache_tokens=150)
    tight = run(search_job(engine))
    assert_same(tight.result, roomy.result, tolerance=ROUNDING)
    assert tight.cost.token_positions > roomy.cost.token_positions
    assert engine.cache_info.peak_num_tokens <= 150


def test_expansions_that_are_short_of_room_side_by_side_get_the_same_replies(llama: Any, tokenizer: Any) -> None:
    engine, naive = TransformersEngine(llama, tokenizer, max_cache_tokens=100), NaiveEngine(llama, tokenizer)
    context, naive_context = engine.open(PROMPT, max_tokens=40), naive.open(PROMPT, max_tokens=40)
    replies = answer(engine, *(siblings(context, seed=seed) for seed in range(12)))
    expected = [naive.reply(siblings(naive_context, seed=seed)) for seed in range(12)]
    assert_same(replies, expected, tolerance=ROUNDING)


def test_what_is_asked_ahead_pushes_out_little_of_what_is_under_way(llama: Any, tokenizer: Any) -> None:
    def ask(limit: int | None) -> Cost:
        engine = TransformersEngine(llama, tokenizer, max_cache_tokens=limit)
        context = engine.open(PROMPT, max_tokens=40)
        # At such a temperature all of the 12 * 8 branches part at once.
        requests = [replace(siblings(context, seed=seed), temperature=20.0, top_k=200) for seed in range(12)]
        return answer_and_cost(engine, *requests)[1]

    roomy, tight = ask(None), ask(90)
    assert roomy.token_positions > 4 * 90
    assert tight.token_positions < 2 * roomy.token_positions
    assert (
        tight.forward_passes < 12 * roomy.forward_passes / 2
    )  # one after the other it would take twelve times as many


def test_younger_work_waits_and_is_taken_up_again_where_the_cache_holds_one_conversation(
    llama: Any, tokenizer: Any
) -> None:
    engine, naive = TransformersEngine(llama, tokenizer, max_cache_tokens=60), NaiveEngine(llama, tokenizer)
    prompts = [f"{PROMPT} {each}" for each in ("yes", "no", "rain")]
    requests = [rollout(engine.open(prompt, max_tokens=20), max_tokens=12) for prompt in prompts]
    expected = [naive.reply(rollout(naive.open(prompt, max_tokens=20), max_tokens=12)) for prompt in prompts]
    assert_same(answer(engine, *requests), expected, tolerance=ROUNDING)
    assert engine.cache_info.peak_num_tokens <= 60


TOKENIZER = tiny_tokenizer()
MODEL = tiny_llama(TOKENIZER, seed=1)


@settings(max_examples=60, deadline=None)
@given(asked=ASKED_IN_TURN, max_tokens=st.integers(26, 80), cancelled=st.sets(st.integers(0, 6), max_size=2))
def test_all_get_the_naive_replies_however_small_the_cache_is(
    asked: Sequence[Asked], max_tokens: int, cancelled: set[int]
) -> None:
    engine = TransformersEngine(MODEL, TOKENIZER, max_cache_tokens=max_tokens)

    def check() -> None:
        info = engine.cache_info
        assert info.num_tokens <= info.peak_num_tokens <= info.max_tokens == max_tokens
        assert info.num_bytes <= max_tokens * 1536

    assert_naive_in_turn(engine, NaiveEngine(MODEL, TOKENIZER), asked, cancelled=cancelled, after_step=check)
    assert engine._runner._tree.num_held == 0  # type: ignore[attr-defined]


# --- Long texts --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step reads ten tokens of long texts; what misses six is not long."""
    monkeypatch.setattr(admission, "MAX_STEP_POSITIONS", 10)
    monkeypatch.setattr(admission, "MAX_SHORT_READ", 6)


@pytest.mark.usefixtures("small_steps")
def test_a_long_prompt_is_read_over_several_steps_in_which_the_others_go_on(llama: Any, tokenizer: Any) -> None:
    engine, naive = TransformersEngine(llama, tokenizer), NaiveEngine(llama, tokenizer)
    long_prompt = "Is it warm? " * 6
    short, long = engine.open("yes", max_tokens=40), engine.open(long_prompt, max_tokens=40)
    engine.submit(rollout(short, max_tokens=20))
    engine.step()
    ticket = engine.submit(rollout(long, max_tokens=1))
    with counted_forward_passes(llama) as shapes:
        reports = [engine.step()]
        while ticket not in reports[-1].finished:
            reports.append(engine.step())
    # The older rollout takes one position of ten in the first steps, the long prompt the others
    assert [report.positions[ticket] for report in reports[:2]] == [9, 9]
    assert [sum(report.positions.values()) for report in reports[:-1]] == [10] * (len(reports) - 1)
    assert sum(report.positions[ticket] for report in reports) == long.num_prompt_tokens - 1  # both begin alike
    assert max(lines * tokens for lines, tokens in shapes) == 10
    assert_same(
        reports[-1].finished[ticket],
        naive.reply(rollout(naive.open(long_prompt, max_tokens=40), max_tokens=1)),
        tolerance=ROUNDING,
    )


@pytest.mark.usefixtures("small_steps")
def test_what_misses_few_tokens_does_not_wait_for_a_long_prompt_that_was_there_before(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    short = engine.open("yes", max_tokens=40)
    answer(engine, rollout(short, max_tokens=1), question(short, "Is it good? "))
    long = engine.submit(rollout(engine.open("Is it warm? " * 9, max_tokens=40), max_tokens=1))
    engine.step()
    younger = [engine.submit(each) for each in (question(short, "Is it good? no"), rollout(short, 70, max_tokens=2))]
    first, second = engine.step(), engine.step()
    assert [*first.finished, *second.finished] == younger
    assert first.positions[long] == second.positions[long] == 10


@pytest.mark.usefixtures("small_steps")
def test_several_requests_of_a_conversation_read_its_prompt_together(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open("Is it warm? " * 6, max_tokens=40)
    requests = [rollout(context, max_tokens=1, seed=seed) for seed in range(4)]
    _, cost = answer_and_cost(engine, *requests)
    assert (cost.cached_positions, cost.token_positions) == (0, context.num_prompt_tokens)


@pytest.mark.usefixtures("small_steps")
def test_of_a_prompt_that_was_forgotten_while_it_was_read_nothing_counts_as_found(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_STEP_POSITIONS", 12)  # of which the branches take eight
    prompt = "Is it warm? " * 6
    engine = TransformersEngine(llama, tokenizer, max_cache_tokens=len(tokenizer(prompt).input_ids) + 14)
    older, long = engine.open("yes", max_tokens=30), engine.open(prompt, max_tokens=30)
    # Branches that part at once need more room step by step, and take it from the long prompt.
    growing = replace(siblings(older, seed=1), temperature=20.0, top_k=200)
    tickets = [engine.submit(growing), engine.submit(rollout(long, max_tokens=1))]
    read: Counter[int] = Counter()
    found: dict[int, int] = {}
    while tickets[1] not in found:
        report = engine.step()
        read += Counter(report.positions)
        found |= report.cached
    assert read[tickets[1]] > long.num_prompt_tokens  # some of it twice
    assert found == {tickets[0]: 0, tickets[1]: 0}


@pytest.mark.usefixtures("small_steps")
def test_a_prompt_that_a_failing_pass_has_cut_short_is_counted_anew(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open("Is it warm? " * 6, max_tokens=8)
    engine.submit(rollout(context, max_tokens=1))
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "forward", None)
        with pytest.raises(TypeError):
            engine.step()
    _, cost = answer_and_cost(engine, rollout(context, max_tokens=1))
    assert (cost.cached_positions, cost.token_positions) == (0, context.num_prompt_tokens)


def test_younger_work_is_not_put_off_for_prompts_that_do_not_fit_both(llama: Any, tokenizer: Any) -> None:
    def ask(*, is_guided: bool) -> Counter[int]:
        engine = TransformersEngine(llama, tokenizer, max_cache_tokens=len(tokenizer(PROMPT).input_ids) + 60)
        contexts = [engine.open(prompt, max_tokens=20) for prompt in (PROMPT + " yes" * 20, PROMPT)]
        guided = replace(rollout(contexts[0], max_tokens=8), guidance="Be polite." if is_guided else "")
        _, younger = (engine.submit(each) for each in (guided, rollout(contexts[1], max_tokens=8)))
        return Counter({younger: sum(engine.step().positions.get(younger, 0) for _ in range(40))})

    assert ask(is_guided=True)[1] <= 2 * ask(is_guided=False)[1]


@pytest.mark.usefixtures("small_steps")
def test_what_is_read_of_a_long_prompt_stays_while_the_rest_is_read(llama: Any, tokenizer: Any) -> None:
    prompt = "Is it warm? " * 6
    num_tokens = len(tokenizer(prompt).input_ids)
    engine = TransformersEngine(llama, tokenizer, max_cache_tokens=num_tokens + 6)
    long = engine.open(prompt, max_tokens=6)
    engine.submit(rollout(long, max_tokens=1))
    engine.submit(rollout(engine.open("Options: yes or no " * 6, max_tokens=6), max_tokens=1))
    for num_read in range(10, num_tokens, 10):
        engine.step()
        assert engine._runner._tree.num_held == num_read  # type: ignore[attr-defined]


@pytest.mark.usefixtures("small_steps")
def test_two_long_prompts_read_no_more_in_a_step_than_one(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    for prompt in ("Is it warm? " * 6, "Options: yes or no " * 6):
        engine.submit(rollout(engine.open(prompt, max_tokens=40), max_tokens=1))
    reports = [engine.step() for _ in range(3)]
    assert [sum(report.positions.values()) for report in reports] == [11] * 3  # one more for the second to go on with


@pytest.mark.usefixtures("small_steps")
def test_a_prompt_that_two_conversations_read_at_once_is_found_by_the_second(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    contexts = [engine.open("Is it warm? " * 6, max_tokens=40) for _ in range(2)]
    tickets = [engine.submit(rollout(each, max_tokens=1)) for each in contexts]
    read, found = Counter[int](), Counter[int]()
    for _ in range(10):
        report = engine.step()
        read += Counter(report.positions)
        found += Counter(report.cached)
    for ticket, context in zip(tickets, contexts, strict=True):
        assert read[ticket] + found[ticket] == context.num_prompt_tokens
    assert sum(read.values()) == contexts[0].num_prompt_tokens


def test_what_waits_for_room_is_not_linked_in(monkeypatch: pytest.MonkeyPatch) -> None:
    room, context = admission.Admission("engine", admission.CacheLimit(100, "so many")), Context("engine", 1)
    score = Score(context, "", "", ("A", "B"))
    works = {number: ScoreWork(score, tuple(range(number, number + 80)), [(1,), (2,)]) for number in range(3)}
    linked: list[Any] = []
    link = PrefixTree.link

    def note(tree: PrefixTree, *args: Any) -> Any:
        linked.append(args)
        return link(tree, *args)

    monkeypatch.setattr(PrefixTree, "link", note)
    admitted, refused = room.admit(works)
    assert (list(admitted), refused, len(linked)) == ([0], {}, 1)


def test_guided_rollouts_keep_both_prompts_where_there_is_room(llama: Any, tokenizer: Any) -> None:
    def ask(limit: int | None) -> Cost:
        engine = TransformersEngine(llama, tokenizer, max_cache_tokens=limit)
        context = engine.open("Is it warm? " * 9, max_tokens=40)
        requests = [replace(rollout(context, max_tokens=12, seed=seed), guidance="Be polite.") for seed in range(4)]
        return answer_and_cost(engine, *requests)[1]

    both = 2 * len(tokenizer("Is it warm? " * 9).input_ids) + 10
    assert ask(both + 4 * 24).token_positions == ask(None).token_positions


def test_questions_of_one_request_that_begin_alike_need_room_for_that_once() -> None:
    room, context = admission.Admission("engine", admission.CacheLimit(14, "so many")), Context("engine", 1)
    works = [ScoreWork(Score(context, "", "", ("A", "B")), (1,), [(1,), (2,)]) for _ in range(2)]
    beginning = tuple(range(10))
    fitting = [(*beginning, 1), (*beginning, 1, 2), (*beginning, 3, 4), (*beginning, 3, 4)]
    for work, texts in zip(works, (fitting, [*fitting, (*beginning, 5)]), strict=True):
        work.wants = [Probability(Place(None, tokens), (1, 2)) for tokens in texts]
    admitted, refused = room.admit({1: works[0]})
    assert (len(admitted[1].new), refused) == (14, {})
    room.release(1)
    _, refused = room.admit({2: works[1]})
    assert "needs 15 tokens" in str(refused[2])


@pytest.mark.usefixtures("small_steps")
def test_of_a_long_prompt_no_more_counts_as_found_than_was_there(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    first = engine.open("Is it warm? " * 6, max_tokens=8)
    _, cost = answer_and_cost(engine, rollout(first, max_tokens=1))
    assert (cost.cached_positions, cost.token_positions) == (0, first.num_prompt_tokens)
    assert cost.forward_passes == math.ceil(first.num_prompt_tokens / 10)
    second = engine.open("Is it warm? " * 6 + "no? " * 9, max_tokens=8)
    _, cost = answer_and_cost(engine, rollout(second, max_tokens=1))
    assert cost.cached_positions == first.num_prompt_tokens - 1  # its last token is a space that goes with what follows
    assert cost.token_positions == second.num_prompt_tokens - cost.cached_positions > 10


@settings(max_examples=60, deadline=None)
@given(
    asked=ASKED_IN_TURN,
    max_positions=st.integers(1, 12),
    max_short=st.integers(0, 12),
    max_read=st.integers(1, 60),
    max_tokens=st.integers(26, 80),
    cancelled=st.sets(st.integers(0, 6), max_size=2),
)
def test_all_get_the_naive_replies_however_few_positions_a_step_may_have(
    asked: Sequence[Asked], max_positions: int, max_short: int, max_read: int, max_tokens: int, cancelled: set[int]
) -> None:
    engine, naive = TransformersEngine(MODEL, TOKENIZER, max_cache_tokens=max_tokens), NaiveEngine(MODEL, TOKENIZER)
    tree = engine._runner._tree  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "MAX_STEP_POSITIONS", max_positions)
        patch.setattr(admission, "MAX_SHORT_READ", max_short)
        patch.setattr(packing, "MAX_SLOTS_READ", max_read)
        assert_naive_in_turn(engine, naive, asked, cancelled=cancelled)
    assert engine.cache_info.peak_num_tokens <= max_tokens
    assert tree.num_held == 0
