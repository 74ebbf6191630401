"""The cache of keys and values: layout and mask of a forward pass, memory, and what happens when room is short."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from langchain_rain.drivers import run
from langchain_rain.engines import transformers as engine_module
from langchain_rain.engines.kv_tree import RowFeed, TreeCache, TreeLayer, fitting, pack, roomier
from langchain_rain.engines.prefix_tree import CachedToken, PrefixTree
from langchain_rain.engines.transformers import CACHE_FACTOR, CACHE_MARGIN, TransformersEngine
from langchain_rain.search.config import SearchConfig
from langchain_rain.search.protocol import Expand, Rollout
from tests.comparing import PROMPT, ROUNDING, answer, assert_same, search_job
from tests.naive_engine import NaiveEngine

# --- Layout ------------------------------------------------------------------------------------------------------


def grown(*sequences: tuple[int, ...]) -> tuple[PrefixTree, list[list[CachedToken]]]:
    tree = PrefixTree(max_tokens=99)
    tree.begin_step()
    return tree, [tree.path(sequence) for sequence in sequences]


def test_siblings_stand_side_by_side_and_see_their_common_beginning_but_not_each_other() -> None:
    tree, ((root, first), (_, second)) = grown((7, 8), (7, 9))  # slots 1, 2 and 3
    packed = pack({0: RowFeed(tree, without_logits=[root], with_logits=[first, second])})
    assert packed.input_ids.tolist() == [[7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 1]]
    assert packed.slots.tolist() == [[1, 2, 3]]
    assert packed.seen_slots.tolist() == [[1, 2, 3]]
    assert packed.is_ancestor.astype(int).tolist() == [
        [
            [1, 0, 0],
            [1, 1, 0],
            [1, 0, 1],
        ]
    ]
    assert packed.seen_positions.tolist() == [[0, 1, 1]]
    assert packed.num_logits == 2


def test_new_tokens_see_cached_ones_in_any_order_of_columns() -> None:
    tree, ((root, middle, leaf),) = grown((7, 8, 9))
    # The middle one is asked about, so it stands behind its own child.
    packed = pack({0: RowFeed(tree, without_logits=[leaf], with_logits=[middle])})
    assert packed.where == {leaf: (0, 0), middle: (0, 1)}
    assert packed.seen_slots.tolist() == [[1, 2, 3]]
    assert packed.is_ancestor.astype(int).tolist() == [[[1, 1, 1], [1, 1, 0]]]
    assert packed.seen_positions.tolist() == [[root.position, 1, 2]]


def test_rows_share_lines_of_the_same_length_and_see_nothing_of_each_other() -> None:
    long_tree, ((*before, last),) = grown((7, 8, 9, 6))
    short_tree, ((only,),) = grown((5,))
    packed = pack({4: RowFeed(long_tree, before, [last]), 2: RowFeed(short_tree, [], [only])})
    # Five tokens in two lines: the short row's one and two of the long row's, then the rest, padded at its beginning.
    assert packed.input_ids.tolist() == [[7, 8, 5], [0, 9, 6]]
    assert packed.position_ids.tolist() == [[0, 1, 0], [0, 2, 3]]
    assert packed.rows.tolist() == [[4, 4, 2], [2, 4, 4]]
    assert packed.slots.tolist() == [[1, 2, 1], [0, 3, 4]]
    # The first line sees fewer slots, so it names its first one again, and nothing attends to that.
    assert packed.seen_rows.tolist() == [[2, 4, 4, 2], [4, 4, 4, 4]]
    assert packed.seen_slots.tolist() == [[1, 1, 2, 1], [1, 2, 3, 4]]
    assert packed.seen_positions.tolist() == [[0, 0, 1, 0], [0, 1, 2, 3]]
    assert packed.is_ancestor.astype(int).tolist() == [
        [[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]],
        [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],  # padding attends to the first slot, whatever it is
    ]
    assert packed.where[only] == (0, 2)
    assert packed.where[last] == (1, 2)
    assert packed.num_logits == 1
    assert (packed.num_rows, packed.num_slots) == (5, 5)


def test_rows_of_the_same_length_have_a_line_each_and_others_have_one_when_asked_to() -> None:
    tree, (first, second) = grown((7, 8), (5, 6, 4))
    alike = {0: RowFeed(tree, first, []), 1: RowFeed(tree, second[:2], [])}
    assert pack(alike).rows.tolist() == [[0, 0], [1, 1]]
    unlike = {0: RowFeed(tree, first[:1], []), 1: RowFeed(tree, second, [])}
    assert pack(unlike).rows.tolist() == [[0, 1], [1, 1]]
    packed = pack(unlike, in_shared_lines=False)
    assert packed.input_ids.tolist() == [[0, 0, 7], [5, 6, 4]]
    assert packed.seen_rows.tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("seed", range(30))
def test_lines_hold_every_token_once_with_its_ancestors_and_no_line_holds_more_than_two_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    feeds, ancestors = {}, {}
    for row in random.permutation(12)[: random.integers(1, 9)].tolist():
        tree, paths = grown(*(tuple(random.integers(3, size=random.integers(1, 30)).tolist()) for _ in range(3)))
        on_path = {node: path[: index + 1] for path in paths for index, node in enumerate(path)}
        nodes = [node for node in on_path if random.random() < 0.5] or paths[0][-1:]
        num_asked = int(random.integers(len(nodes) + 1))
        feeds[row] = RowFeed(tree, nodes[num_asked:], nodes[:num_asked])
        ancestors.update({node: {(row, each.slot, each.position) for each in on_path[node]} for node in nodes})
    packed = pack(feeds)
    num_lines, num_tokens = packed.input_ids.shape
    assert packed.where.keys() == ancestors.keys()
    assert len(set(packed.where.values())) == len(ancestors)
    assert num_lines * (num_tokens - 1) < len(ancestors)  # less than a token of padding in a line
    asked = {node for feed in feeds.values() for node in feed.with_logits}
    for node, place in packed.where.items():
        line, column = place
        sees = packed.is_ancestor[place]
        seen = np.stack([packed.seen_rows[line], packed.seen_slots[line], packed.seen_positions[line]], axis=1)[sees]
        assert sorted(map(tuple, seen.tolist())) == sorted(ancestors[node])
        assert (packed.rows[place], packed.slots[place], packed.position_ids[place]) in ancestors[node]
        assert (packed.input_ids[place], packed.position_ids[place]) == (node.token, node.position)
        assert column >= num_tokens - packed.num_logits or node not in asked
    assert packed.is_ancestor.any(axis=2).all()
    assert all(len(set(rows)) <= 2 for rows in packed.seen_rows.tolist())


def test_memory_grows_by_doubling_and_keeps_what_it_holds() -> None:
    assert roomier((0, 0), (1, 10)) == (1, 10)
    assert roomier((1, 10), (1, 9)) == (1, 10)
    assert roomier((1, 10), (1, 11)) == (1, 20)
    assert roomier((1, 10), (1, 50)) == (1, 50)
    assert roomier((1, 20), (3, 5)) == (3, 20)
    states = torch.zeros(7, 6, 2, 4)
    first = fitting(None, (1, 10), states)
    assert first.shape == (1, 10, 2, 4)
    first[:] = 1
    assert fitting(first, (1, 10), states) is first
    larger = fitting(first, (3, 20), states)
    assert larger.shape == (3, 20, 2, 4)
    assert larger[0, :10].eq(1).all()
    assert larger.sum() == first.sum()


def test_a_layer_says_how_many_slots_are_seen() -> None:
    cache = TreeCache()
    layer = TreeLayer(cache)
    assert layer.get_seq_length() == 0
    tree, (path,) = grown((7, 8))
    cache.begin(pack({0: RowFeed(tree, path, [])}))
    assert layer.get_seq_length() == 2  # of three; padding alone sees the first
    assert layer.get_mask_sizes(query_length=2) == (2, 0)
    assert layer.get_max_length() == -1


# --- Memory ------------------------------------------------------------------------------------------------------


def rollout(context: Any, *prefix: int) -> Rollout:
    return Rollout(context, prefix, until=(), max_tokens=3, temperature=1.0, seed=1)


def memory(engine: TransformersEngine) -> list[torch.Tensor]:
    layers = [tensor for layer in engine._cache.layers for tensor in (layer.keys, layer.values)]  # type: ignore[union-attr]
    return [tensor for tensor in [*layers, engine._cache.hidden] if tensor is not None]


def test_the_row_of_a_closed_conversation_is_the_next_ones(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    first, second = engine.open(PROMPT, max_tokens=8), engine.open("Human: yes", max_tokens=8)
    answer(engine, rollout(first), rollout(second))
    engine.close(first)
    third = engine.open("Human: no", max_tokens=8)
    naive = NaiveEngine(llama, tokenizer)
    expected = [naive.reply(rollout(naive.open(prompt, max_tokens=8))) for prompt in ("Human: no", "Human: yes")]
    assert_same(answer(engine, rollout(third), rollout(second)), expected, tolerance=ROUNDING)
    assert {tensor.shape[0] for tensor in memory(engine)} == {2}


def test_memory_is_free_when_the_last_conversation_is_closed(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    first, second = engine.open(PROMPT, max_tokens=8), engine.open(PROMPT, max_tokens=8)
    answer(engine, rollout(first), rollout(second))
    held = [weakref.ref(tensor) for tensor in memory(engine)]
    assert len(held) == 2 * llama.config.num_hidden_layers + 1
    engine.close(first)
    gc.collect()
    assert all(reference() is not None for reference in held)
    engine.close(second)
    gc.collect()
    assert all(reference() is None for reference in held)
    engine.close(second)  # twice does no harm


def test_a_search_leaves_nothing_behind(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    run(search_job(engine))
    has_closed = threading.Event()
    engine.channel.post(has_closed.set)  # behind what the search has posted at its end
    assert has_closed.wait(timeout=60)
    assert not engine._conversations
    assert not engine._pending
    assert memory(engine) == []


# --- Short of room -----------------------------------------------------------------------------------------------


def siblings(context: Any, *prefix: int, seed: int) -> Expand:
    return Expand(context, prefix, 8, 6, num_draws=7, top_k=10, temperature=1.0, seed=seed)


@pytest.mark.parametrize("room", [1, 20, 50, 80])
def test_requests_that_grow_side_by_side_survive_a_cache_too_small_for_them(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(engine_module, "CACHE_FACTOR", 1)
    monkeypatch.setattr(engine_module, "CACHE_MARGIN", room - len(tokenizer(PROMPT).input_ids) - 40)
    engine, naive = TransformersEngine(llama, tokenizer), NaiveEngine(llama, tokenizer)
    context, naive_context = engine.open(PROMPT, max_tokens=40), naive.open(PROMPT, max_tokens=40)
    for prefix in ((), (40, 50, 60), (40,)):
        replies = answer(engine, *(siblings(context, *prefix, seed=seed) for seed in range(3)))
        expected = [naive.reply(siblings(naive_context, *prefix, seed=seed)) for seed in range(3)]
        assert_same(replies, expected, tolerance=ROUNDING)


def test_a_search_with_next_to_no_cache_is_the_same_search_and_costs_more(
    llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = run(search_job(TransformersEngine(llama, tokenizer)))
    monkeypatch.setattr(engine_module, "CACHE_FACTOR", 0)
    tight = run(search_job(TransformersEngine(llama, tokenizer)))
    assert_same(tight.result, roomy.result, tolerance=ROUNDING)
    assert tight.cost.token_positions > roomy.cost.token_positions


def test_a_search_caches_no_more_than_prompt_answer_and_margin_three_times(llama: Any, tokenizer: Any) -> None:
    max_tokens = 20
    config = SearchConfig(
        max_simulations=12, min_further_simulations=6, max_rollout_tokens=10, accept_value=-1.0, lookahead=8
    )
    engine = TransformersEngine(llama, tokenizer)
    run(search_job(engine, config=config, max_tokens=max_tokens))
    peak = engine.peak_cached_positions
    limit = 3 * (len(tokenizer(PROMPT).input_ids) + max_tokens + 200)
    assert limit == CACHE_FACTOR * (len(tokenizer(PROMPT).input_ids) + max_tokens + CACHE_MARGIN)
    assert limit / 2 < peak <= limit


def test_slots_that_no_new_token_sees_take_no_part() -> None:
    tree, ((root, first), (_, second)) = grown((7, 8), (7, 9))  # slots 1, 2 and 3
    packed = pack({0: RowFeed(tree, without_logits=[], with_logits=[second])})
    assert packed.seen_slots.tolist() == [[1, 3]]
    assert packed.seen_positions.tolist() == [[0, 1]]
    assert (root.slot, first.slot, second.slot) == (1, 2, 3)


@pytest.mark.parametrize("num_draws", [9, 40])
def test_what_is_asked_ahead_takes_no_more_cache_though_every_sibling_goes_its_own_way(
    llama: Any, tokenizer: Any, num_draws: int
) -> None:
    config = SearchConfig(
        token_set_lengths=(10,),
        num_draws=num_draws,
        temperature=10.0,
        max_simulations=12,
        accept_value=-1.0,
        lookahead=8,
    )
    engine = TransformersEngine(llama, tokenizer)
    run(search_job(engine, config=config, max_tokens=40))
    limit = 3 * (len(tokenizer(PROMPT).input_ids) + 40 + 200)
    assert limit / 2 < engine.peak_cached_positions <= limit


def test_an_expansion_that_has_to_wait_for_room_gets_the_same_reply(llama: Any, tokenizer: Any) -> None:
    engine, naive = TransformersEngine(llama, tokenizer), NaiveEngine(llama, tokenizer)
    context, naive_context = engine.open(PROMPT, max_tokens=40), naive.open(PROMPT, max_tokens=40)
    # Half of 3 * (prompt + 40 + 200) positions are room for 7 expansions of 8 branches by 6 tokens, not for 12.
    tickets = [engine.submit(siblings(context, seed=seed)) for seed in range(12)]
    assert len(engine.step().positions) < 12
    for ticket in tickets:
        engine.cancel(ticket)
    replies = answer(engine, *(siblings(context, seed=seed) for seed in range(12)))
    expected = [naive.reply(siblings(naive_context, seed=seed)) for seed in range(12)]
    assert_same(replies, expected, tolerance=ROUNDING)
