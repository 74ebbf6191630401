"""Requests to a model: what they cost, and that neither failures nor neighbours change what others get."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.embeddings import Embeddings
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_rain.budget import Budget
from langchain_rain.drivers import Outcome, run, run_batch, stream
from langchain_rain.engines import tree_runner
from langchain_rain.engines.base import ChatEngine, Cost
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, OptionLogprobs, Request, Rollout, Score, TokenSet
from tests.comparing import (
    PROMPT,
    ROUNDING,
    answer,
    answer_and_cost,
    assert_naive_replies,
    assert_same,
    counted_forward_passes,
    search_job,
)
from tests.naive_engine import NaiveEngine
from tests.tiny_models import tiny_llama, tiny_tokenizer

MARKS = (",", ".", "?", ":", ";", "\n")


def siblings(context: Context, *prefix: int, seed: int = 3, num_tokens: int = 5) -> Expand:
    return Expand(context, prefix, 6, num_tokens, num_draws=5, top_k=8, temperature=1.0, seed=seed)


def most_probable(context: Context, *prefix: int, num_token_sets: int = 5) -> Expand:
    return Expand(context, prefix, num_token_sets, 1, num_draws=0, top_k=8, temperature=1.0, seed=0)


def rollout(context: Context, *prefix: int, seed: int = 4, max_tokens: int = 6) -> Rollout:
    return Rollout(context, prefix, until=MARKS, max_tokens=max_tokens, temperature=1.0, seed=seed)


def both_orders(context: Context, transcript: str = PROMPT) -> list[Score]:
    options = ("(A) yes\n(B) no", "(A) no\n(B) yes")
    return [Score(context, f"{transcript}\n{each}\n", "The answer is: (", ("A", "B")) for each in options]


def num_common(tokenizer: Any, *texts: str) -> int:
    """The number of tokens with which all texts begin."""
    columns = zip(*(tokenizer(text).input_ids for text in texts), strict=False)
    return next(index for index, column in enumerate(columns) if len(set(column)) > 1)


def all_kinds(context: Context) -> list[Request]:
    return [
        most_probable(context),
        siblings(context, 40, 50),
        rollout(context, 40, 50, 60),
        *both_orders(context),
        Embed(context, (40, 50, 60, 70), num_tokens=3),
    ]


# --- Replies -----------------------------------------------------------------------------------------------------


def test_all_kinds_of_requests_asked_at_once_get_the_naive_replies(llama: Any, tokenizer: Any) -> None:
    assert_naive_replies(llama, tokenizer, all_kinds)


def test_temperature_and_excluded_token_sets_are_respected_as_in_the_naive_engine(llama: Any, tokenizer: Any) -> None:
    first, longer = assert_naive_replies(llama, tokenizer, lambda context: [most_probable(context), siblings(context)])
    taken = frozenset(each.tokens for each in [*first[:3], *longer[:2]])

    def ask(context: Context) -> list[Request]:
        return [
            Expand(context, (), 5, 1, num_draws=0, top_k=8, temperature=2.0, seed=0, exclude=taken),
            Expand(context, (), 5, 5, num_draws=5, top_k=8, temperature=2.0, seed=3, exclude=taken),
            Rollout(context, (40,), until=(), max_tokens=6, temperature=0.5, seed=9),
        ]

    tokens = [each.tokens for reply in assert_naive_replies(llama, tokenizer, ask)[:2] for each in reply]
    assert taken.isdisjoint(tokens)


def test_equally_probable_tokens_come_in_the_order_of_their_ids_whatever_is_asked_beside(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer)
    model.lm_head.weight.data.zero_()  # every token is as probable as every other
    engine = TransformersEngine(model, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    three, forty = answer(
        engine, most_probable(context, num_token_sets=3), most_probable(context, 40, num_token_sets=40)
    )
    assert [each.tokens for each in three] == [(0,), (1,), (2,)]
    assert [each.tokens for each in forty] == [(token,) for token in range(40)]
    assert_naive_replies(model, tokenizer, lambda context: [most_probable(context), siblings(context)])


def test_only_the_greedy_token_set_is_offered_where_it_is_the_only_one(llama: Any, tokenizer: Any) -> None:
    def ask(context: Context) -> list[Request]:
        return [Expand(context, (), 4, 3, num_draws=4, top_k=1, temperature=1.0, seed=0)]

    ((only,),) = assert_naive_replies(llama, tokenizer, ask)
    assert only.is_greedy
    assert only.logprob == 0.0  # the one token that is left has all the probability


def test_no_token_set_is_left_where_all_are_excluded(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    (offered,) = answer(engine, siblings(context))
    again = Expand(context, (), 6, 5, 5, 8, 1.0, seed=3, exclude=frozenset(each.tokens for each in offered))
    assert answer(engine, again) == [[]]


def test_a_rollout_of_at_most_no_tokens_is_empty(llama: Any, tokenizer: Any) -> None:
    replies = assert_naive_replies(
        llama, tokenizer, lambda context: [rollout(context, max_tokens=0), rollout(context, 40, max_tokens=0)]
    )
    assert replies == [TokenSet((), ""), TokenSet((), "")]


def test_a_rollout_stops_at_a_mark_and_before_it_starts_if_the_text_ends_in_one(llama: Any, tokenizer: Any) -> None:
    colon, word = tokenizer.encode(" is:", add_special_tokens=False)[-1], tokenizer.encode("yes")[-1]
    until_any = tuple(chr(code) for code in range(256))
    replies = assert_naive_replies(
        llama,
        tokenizer,
        lambda context: [
            rollout(context, word, colon),
            Rollout(context, (), until=MARKS, max_tokens=1, temperature=1.0, seed=1),
            Rollout(context, (), until=until_any, max_tokens=9, temperature=1.0, seed=1),
        ],
    )
    assert [len(each.tokens) for each in replies[:2]] == [0, 1]
    assert len(replies[2].tokens) < 9


def test_a_mark_counts_only_after_the_least_number_of_tokens(llama: Any, tokenizer: Any) -> None:
    colon, word = tokenizer.encode(" is:", add_special_tokens=False)[-1], tokenizer.encode("yes")[-1]
    until_any = tuple(chr(code) for code in range(256))

    def ask(context: Context) -> list[Request]:
        return [
            replace(rollout(context, word, colon), min_tokens=1),
            replace(rollout(context, word, colon), min_tokens=0),
            *(Rollout(context, (word,), until_any, 9, 1.0, seed=2, min_tokens=least) for least in (1, 4, 20)),
        ]

    lengths = [len(each.tokens) for each in assert_naive_replies(llama, tokenizer, ask)]
    assert lengths[0] > 0
    assert lengths[1] == 0
    assert lengths[2] < 4 <= lengths[3] < lengths[4] == 9


def test_guidance_is_put_before_the_prompt_where_it_fits(llama: Any, tokenizer: Any) -> None:
    longest = llama.config.max_position_embeddings - 40 - len(tokenizer(PROMPT).input_ids)
    guidances = ["Be polite.", "x" * (longest - 3), "x" * longest]

    def ask(context: Context) -> list[Request]:
        return [rollout(context, 40), *(replace(rollout(context, 40), guidance=guidance) for guidance in guidances)]

    plain, polite, fitting, too_long = assert_naive_replies(llama, tokenizer, ask)
    assert polite != plain
    assert fitting != plain
    assert too_long == plain


@pytest.mark.parametrize("temperature", [0.2, 1.0])  # at the lower one few tokens have a thousandth of the first one
def test_a_guided_text_is_one_that_the_model_might_write_by_itself(
    llama: Any, tokenizer: Any, temperature: float
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=40)
    requests = [
        Rollout(context, (), (), max_tokens=8, temperature=temperature, seed=seed, guidance="Be polite.")
        for seed in range(5)
    ]
    num_plausible = []
    for guided in answer(engine, *requests):
        for count, token in enumerate(guided.tokens):
            sequence = torch.tensor([[*tokenizer(PROMPT).input_ids, *guided.tokens[:count]]])
            with torch.inference_mode():
                logits = llama(sequence).logits[0, -1] / temperature
            plausible = (logits >= logits.max() + np.log(0.001)).nonzero().flatten()
            assert token in plausible
            assert token in logits.topk(15).indices
            num_plausible.append(len(plausible))
    assert len(num_plausible) == 40
    assert (min(num_plausible) < 15) == (temperature < 1)


@pytest.mark.parametrize("with_chat_template", [True, False])
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_guidance_stands_in_the_system_message_of_a_dialogue(with_chat_template: bool, system: str) -> None:
    tokenizer = tiny_tokenizer(with_chat_template=with_chat_template)
    model = tiny_llama(tokenizer, seed=1)
    engine, naive = TransformersEngine(model, tokenizer), NaiveEngine(model, tokenizer)
    messages = [*([SystemMessage(system)] if system else []), HumanMessage("How do I wash the bike?")]
    contexts = [each.open(Dialogue(tuple(messages)), max_tokens=40) for each in (engine, naive)]
    guided, expected = (replace(rollout(context), guidance="Be polite.") for context in contexts)
    reply, plain = answer(engine, guided, rollout(contexts[0]))
    assert_same(reply, naive.reply(expected), tolerance=ROUNDING)
    assert reply != plain


def test_the_mass_of_a_judgement_is_what_all_its_options_cover(llama: Any, tokenizer: Any) -> None:
    replies = assert_naive_replies(llama, tokenizer, both_orders)
    for reply in replies:
        assert isinstance(reply, OptionLogprobs)
        assert reply.mass == pytest.approx(np.exp(reply.logprobs).sum())


def test_an_embedding_is_a_unit_vector_of_the_models_dimension(llama: Any, tokenizer: Any) -> None:
    (vector,) = assert_naive_replies(llama, tokenizer, lambda context: [Embed(context, (40, 50), num_tokens=2)])
    assert vector.shape == (llama.config.hidden_size,)
    assert np.linalg.norm(vector) == pytest.approx(1)


# --- Costs -------------------------------------------------------------------------------------------------------


def test_both_orders_of_a_judgement_take_one_forward_pass_over_what_they_do_not_share(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    requests = both_orders(context)
    first, second = (tokenizer(each.question + each.answer_prefix).input_ids for each in requests)
    num_shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    num_positions = len(first) + len(second) - num_shared
    with counted_forward_passes(llama) as shapes:
        _, cost = answer_and_cost(engine, *requests)
    assert shapes == [(1, num_positions)]
    assert cost == Cost(1, num_positions)


def test_siblings_take_as_many_forward_passes_as_they_have_tokens(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    with counted_forward_passes(llama) as shapes:
        (token_sets,) = answer(engine, siblings(context, num_tokens=4))
    assert len(shapes) == 4
    # The prompt; then one position for each distinct beginning of a sibling of 1, 2 and 3 tokens.
    beginnings = [{each.tokens[:length] for each in token_sets} for length in (1, 2, 3)]
    assert shapes == [(1, context.num_prompt_tokens), *((1, len(each)) for each in beginnings)]


def test_what_is_cached_costs_nothing_and_what_is_asked_there_one_position(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    embed = Embed(context, (40, 50, 60), num_tokens=2)
    assert answer_and_cost(engine, embed)[1] == Cost(1, context.num_prompt_tokens + 3)
    assert answer_and_cost(engine, embed)[1] == Cost()
    assert answer_and_cost(engine, most_probable(context, 40, 50))[1] == Cost(1, 1)
    assert answer_and_cost(engine, most_probable(context, 40, 51))[1] == Cost(1, 1)


def test_a_request_that_needs_no_forward_pass_is_not_charged_for_that_of_its_neighbour(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    mine, other = engine.open(PROMPT, max_tokens=8), engine.open("Human: yes", max_tokens=8)
    embed = Embed(mine, (40, 50), num_tokens=2)
    answer(engine, embed)
    free, charged = engine.submit(embed), engine.submit(most_probable(other))
    report = engine.step()
    assert report.finished.keys() == {free, charged}
    num_shared = num_common(tokenizer, PROMPT, "Human: yes")
    assert report.positions == {charged: other.num_prompt_tokens - num_shared}


def test_positions_that_serve_several_requests_count_for_the_first(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    first, second = engine.submit(most_probable(context, 40)), engine.submit(most_probable(context, 40, 50))
    assert engine.step().positions == {first: context.num_prompt_tokens + 1, second: 1}


# --- Rewinding, cancelling, closing ------------------------------------------------------------------------------


def test_extending_after_a_rewind_is_extending_afresh(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=40)
    answer(engine, siblings(context, 40, 50, 60, 70), rollout(context, 40, 50, 61))
    rewound = answer(engine, siblings(context, 40), rollout(context, 40, 50))
    fresh_engine = TransformersEngine(llama, tokenizer)
    fresh = fresh_engine.open(PROMPT, max_tokens=40)
    assert_same(
        rewound, answer(fresh_engine, siblings(fresh, 40), rollout(fresh, 40, 50)), tolerance=ROUNDING, where="replies"
    )


def test_cancelled_requests_are_never_answered_and_leave_the_others_as_they_are(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=40)
    cancelled, kept = engine.submit(siblings(context, seed=1)), engine.submit(siblings(context, seed=2))
    engine.step()
    engine.step()
    engine.cancel(cancelled)
    engine.cancel(cancelled)  # twice does no harm
    finished: dict[int, Any] = {}
    while kept not in finished:
        finished.update(engine.step().finished)
    assert finished.keys() == {kept}
    naive = NaiveEngine(llama, tokenizer)
    expected = naive.reply(siblings(naive.open(PROMPT, max_tokens=40), seed=2))
    assert_same(finished[kept], expected, tolerance=ROUNDING)
    assert engine.step().finished == {}


def test_a_search_whose_listener_goes_away_leaves_the_engine_working(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    events = stream(search_job(engine))
    next(events)
    events.close()  # type: ignore[attr-defined]  # a generator
    expected = run(search_job(TransformersEngine(llama, tokenizer)))
    assert_same(run(search_job(engine)).result, expected.result, tolerance=ROUNDING)


def test_a_closed_conversation_is_an_error_to_whoever_asks_about_it_and_to_nobody_else(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    closed, kept = engine.open(PROMPT, max_tokens=8), engine.open(PROMPT, max_tokens=8)
    pending = engine.submit(siblings(closed))
    engine.step()
    engine.close(closed)
    late, other = engine.submit(most_probable(closed)), engine.submit(most_probable(kept))
    finished = engine.step().finished
    assert isinstance(finished[pending], EngineError)
    assert isinstance(finished[late], EngineError)
    assert len(finished[other]) == 5


def test_two_engines_may_use_one_model_at_the_same_time(llama: Any, tokenizer: Any) -> None:
    mine, other = TransformersEngine(llama, tokenizer), TransformersEngine(llama, tokenizer)
    embed = Embed(mine.open(PROMPT, max_tokens=8), (40, 50), num_tokens=2)
    from_other: list[Any] = []

    def let_the_other_go_first(*_: Any) -> None:
        handle.remove()
        request = Embed(other.open("Human: yes", max_tokens=8), (60, 70), num_tokens=2)
        thread = threading.Thread(target=lambda: from_other.extend(answer(other, request)))
        thread.start()
        thread.join()

    handle = llama.get_decoder().register_forward_pre_hook(let_the_other_go_first)
    replies = answer(mine, embed)
    naive = NaiveEngine(llama, tokenizer)
    first = naive.reply(Embed(naive.open(PROMPT, max_tokens=8), (40, 50), num_tokens=2))
    second = naive.reply(Embed(naive.open("Human: yes", max_tokens=8), (60, 70), num_tokens=2))
    assert_same([*replies, *from_other], [first, second], tolerance=ROUNDING)


# --- Failures ----------------------------------------------------------------------------------------------------


def test_a_forward_pass_that_fails_fails_all_who_wait_and_nobody_after_them(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    num_passes = 0

    def fail_the_fifth(*_: Any) -> None:
        nonlocal num_passes
        num_passes += 1
        if num_passes == 5:
            raise RuntimeError("out of memory")

    handle = llama.register_forward_pre_hook(fail_the_fifth)
    try:
        failed = run_batch([search_job(engine, seed=seed) for seed in range(2)])
    finally:
        handle.remove()
    for error in failed:
        assert isinstance(error, EngineError)
        assert "out of memory" in str(error)
        assert isinstance(error.__cause__, RuntimeError)
    expected = run(search_job(TransformersEngine(llama, tokenizer)))
    assert_same(run(search_job(engine)).result, expected.result, tolerance=ROUNDING)


def test_a_conversation_goes_on_after_a_forward_pass_that_failed(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=40)
    answer(engine, siblings(context))

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    handle = llama.register_forward_pre_hook(fail)
    engine.submit(siblings(context, 40))
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step()
    handle.remove()
    assert engine.step().finished == {}  # whoever was waiting has been told by the channel
    naive = NaiveEngine(llama, tokenizer)
    expected = naive.reply(siblings(naive.open(PROMPT, max_tokens=40), 40))
    assert_same(answer(engine, siblings(context, 40)), [expected], tolerance=ROUNDING)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_conversation_that_overflows_spoils_no_other_one_that_begins_as_it_does(
    tokenizer: Any, is_alone: bool
) -> None:
    model = tiny_llama(tokenizer, seed=1)
    (poison,) = tokenizer.encode("}", add_special_tokens=False)
    model.model.embed_tokens.weight.data[poison] = float("nan")
    engine = TransformersEngine(model, tokenizer)
    naive = NaiveEngine(model, tokenizer)
    expected = naive.reply(siblings(naive.open(PROMPT, max_tokens=40)))

    spoiled, beside = engine.open("}", max_tokens=40), engine.open(PROMPT, max_tokens=40)
    jobs: list[Request] = [siblings(spoiled), rollout(spoiled), most_probable(spoiled)]
    jobs.append(replace(rollout(spoiled), guidance="Be polite."))
    if is_alone:
        answer(engine, *jobs)
    else:
        assert_same(answer(engine, *jobs, siblings(beside))[-1], expected, tolerance=ROUNDING)
    engine.close(spoiled)
    after = engine.open(PROMPT, max_tokens=40)
    assert_same(answer(engine, siblings(after), siblings(beside)), [expected] * 2, tolerance=ROUNDING)


def test_tokens_apart_are_computed_in_passes_that_are_not_too_large(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(tokenizer, seed=1)
    (poison,) = tokenizer.encode("}", add_special_tokens=False)
    model.model.embed_tokens.weight.data[poison] = float("nan")
    monkeypatch.setattr(tree_runner, "MAX_SLOTS_APART", 30)
    engine, naive = TransformersEngine(model, tokenizer), NaiveEngine(model, tokenizer)
    requests = [siblings(engine.open(prompt, max_tokens=40)) for prompt in (PROMPT + "}", PROMPT)]
    num_tokens = len(tokenizer(PROMPT + "}").input_ids)
    with counted_forward_passes(model) as shapes:
        replies = answer(engine, *requests)
    assert shapes[:2] == [(1, num_tokens), (30 // num_tokens, 1)]
    assert_same(replies[1], naive.reply(siblings(naive.open(PROMPT, max_tokens=40))), tolerance=ROUNDING)


def test_a_model_that_is_not_a_number_is_an_error_and_not_an_answer(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer)
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(EngineError, match="log probabilities are wanted"):
        run(search_job(TransformersEngine(model, tokenizer)))


def test_a_prompt_that_leaves_no_room_for_the_answer_is_an_error_that_says_by_how_much(
    llama: Any, tokenizer: Any
) -> None:
    engine = TransformersEngine(llama, tokenizer)
    room = llama.config.max_position_embeddings - len(tokenizer(PROMPT).input_ids)
    engine.open(PROMPT, max_tokens=room)
    with pytest.raises(EngineError, match=rf"max_tokens={room + 1} exceed the context of LlamaForCausalLM, 512 tokens"):
        engine.open(PROMPT, max_tokens=room + 1)


def test_a_judgement_longer_than_the_context_is_an_error_to_who_asked_for_it(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    context = engine.open(PROMPT, max_tokens=8)
    error, reply = answer(engine, both_orders(context, transcript="~" * 600)[0], both_orders(context)[0])
    assert isinstance(error, EngineError)
    assert "exceeds the context of LlamaForCausalLM, 512 tokens" in str(error)
    assert error.request == "Score"
    assert isinstance(reply, OptionLogprobs)


def test_a_spent_budget_ends_a_search_with_what_it_has(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer)
    job = search_job(engine)
    (outcome,) = run_batch([type(job)(job.steps, job.contexts, Budget(max_forward_tokens=300))])
    assert isinstance(outcome, Outcome)
    assert outcome.result.stop_reason == "budget"


# --- An encoder instead of hidden states -------------------------------------------------------------------------


class LetterCounts(Embeddings):
    """Counts the letters a-z; says how often it was asked; cannot read what it is told not to."""

    def __init__(self, unreadable: str = "\0") -> None:
        self.batches: list[list[str]] = []
        self.unreadable = unreadable

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        if any(self.unreadable in text for text in texts):
            raise ConnectionError("the encoder is gone")
        return [[float(text.count(chr(code))) for code in range(ord("a"), ord("z") + 1)] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


def tokens_of(tokenizer: Any, *texts: str) -> tuple[int, ...]:
    return tuple(token for text in texts for token in tokenizer.encode(text, add_special_tokens=False))


def test_an_encoder_embeds_the_text_of_the_last_tokens_all_of_a_step_in_one_batch(llama: Any, tokenizer: Any) -> None:
    encoder = LetterCounts()
    engine = TransformersEngine(llama, tokenizer, embeddings=encoder)
    context = engine.open(PROMPT, max_tokens=40)
    yes, bee = tokens_of(tokenizer, "yes"), tokens_of(tokenizer, "bbb")
    requests = [Embed(context, yes + bee, len(bee)), Embed(context, bee, len(bee)), Embed(context, yes, len(yes))]
    with counted_forward_passes(llama) as shapes:
        (first, second, third), cost = answer_and_cost(engine, *requests)
    assert shapes == []
    assert cost == Cost()
    assert encoder.batches == [["bbb", "yes"]]
    assert first.tolist() == second.tolist() == [0.0, 1.0] + [0.0] * 24
    assert third[[ord(letter) - ord("a") for letter in "yes"]] == pytest.approx([3**-0.5] * 3)


def test_a_character_split_between_two_token_sets_is_embedded_with_the_second(llama: Any, tokenizer: Any) -> None:
    encoder = LetterCounts()
    engine = TransformersEngine(llama, tokenizer, embeddings=encoder)
    tokens = tokens_of(tokenizer, "a🙂")
    answer(engine, Embed(engine.open(PROMPT, max_tokens=40), tokens, num_tokens=1))
    assert encoder.batches == [["🙂"]]


def test_an_encoder_that_fails_fails_only_who_wanted_an_embedding(llama: Any, tokenizer: Any) -> None:
    engine = TransformersEngine(llama, tokenizer, embeddings=LetterCounts(unreadable="yes"))
    context = engine.open(PROMPT, max_tokens=40)
    yes = tokens_of(tokenizer, "yes")
    error, token_sets = answer(engine, Embed(context, yes, len(yes)), most_probable(context))
    assert isinstance(error, EngineError)
    assert "the encoder is gone" in str(error)
    assert len(token_sets) == 5


def test_searches_with_an_encoder_are_made_without_hidden_states(llama: Any, tokenizer: Any) -> None:
    encoder = LetterCounts()
    outcome = run(search_job(TransformersEngine(llama, tokenizer, embeddings=encoder)))
    assert outcome.result.num_simulations > 0
    assert encoder.batches


# --- Identity ----------------------------------------------------------------------------------------------------


def test_identity_tells_weights_number_types_and_encoders_apart(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer, seed=1)

    def identities(*engines: TransformersEngine) -> Sequence[Any]:
        return [engine.identity for engine in engines]

    same, again = identities(TransformersEngine(model, tokenizer), TransformersEngine(model, tokenizer))
    assert same == again
    others = identities(
        TransformersEngine(tiny_llama(tokenizer, seed=2), tokenizer),
        TransformersEngine(model, tokenizer, name="another"),
        TransformersEngine(model, tokenizer, embeddings=LetterCounts()),
        TransformersEngine(model.float(), tokenizer),
    )
    assert same not in others
    assert others[3]["weights"] == same["weights"]
    assert others[3]["dtype"] == "float32"


def test_the_weights_are_read_once_for_all_who_ask(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(tiny_llama(tokenizer, seed=1), tokenizer)
    identity = engine.identity

    def read_again(data: bytes) -> Any:
        raise AssertionError("the weights were read again")

    monkeypatch.setattr("langchain_rain.engines.transformers.hashlib.sha256", read_again)
    assert engine.identity == identity
    assert isinstance(engine, ChatEngine)  # which looks at every attribute that the protocol names
