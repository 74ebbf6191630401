"""How surprising answers are to the model that was asked."""

import asyncio
import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_rain import EngineError
from langchain_rain.engines.base import Likelihood
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.scripted import ScriptedEngine
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation.fluency import likelihood_of, measures_fluency, perplexity

PROMPT = "Human: How do I water the plants in the hall?\n\nAssistant:"
MESSAGES = [{"role": "user", "content": "How do I water the plants in the hall?"}]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    return engine


def naive(engine: Any, before: str | list[int], text: str) -> Likelihood:
    """Token by token, each by a pass of its own."""
    tokens = engine.tokenizer(before).input_ids if isinstance(before, str) else before
    behind = engine.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    logprob = 0.0
    for token in behind:
        with torch.inference_mode():
            logits = engine.model(torch.tensor([tokens])).logits[0, -1].double()
        logprob += float(logits.log_softmax(-1)[token])
        tokens = [*tokens, token]
    return Likelihood(logprob, len(behind))


@pytest.mark.parametrize("text", [" Give them water once a week.", " xq zzz.", " Give", " a\n\nHuman: <|end|> b"])
async def test_a_likelihood_is_the_sum_over_the_tokens(engine: TransformersEngine, text: str) -> None:
    found, wanted = await likelihood_of(engine, PROMPT, "", text), naive(engine, PROMPT, text)
    assert found.num_tokens == wanted.num_tokens
    assert found.logprob == pytest.approx(wanted.logprob, rel=1e-4)


async def test_an_answer_to_a_conversation_counts_as_the_writer_wrote_it(engine: TransformersEngine) -> None:
    templated = engine.tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    found = await likelihood_of(engine, MESSAGES, "", "Give them water.")
    wanted = naive(engine, templated, "Give them water.")
    assert found.num_tokens == wanted.num_tokens
    assert found.logprob == pytest.approx(wanted.logprob, rel=1e-4)
    tokenizer = copy.deepcopy(engine.tokenizer)
    tokenizer.chat_template = None
    bare = TransformersEngine(engine.model, tokenizer)
    assert await likelihood_of(bare, MESSAGES, "", "Water them.") == await likelihood_of(
        bare, PROMPT, "", " Water them."
    )


async def test_first_words_that_were_given_are_read_and_not_counted(engine: TransformersEngine) -> None:
    found = await likelihood_of(engine, PROMPT, "Give them", " water.")
    wanted = naive(engine, f"{PROMPT} Give them", " water.")
    assert found.num_tokens == wanted.num_tokens
    assert found.logprob == pytest.approx(wanted.logprob, rel=1e-4)


async def test_nothing_said_is_no_surprise(engine: TransformersEngine) -> None:
    assert await likelihood_of(engine, PROMPT, "", "") == Likelihood(0.0, 0)


async def test_what_exceeds_the_context_is_left_out(engine: TransformersEngine) -> None:
    num_before = len(engine.tokenizer(PROMPT).input_ids)
    found = await likelihood_of(engine, PROMPT, "", " water" * 2 * engine.max_context)
    assert found.num_tokens == engine.max_context - num_before
    assert math.isfinite(found.logprob)


async def test_many_at_once_are_each_its_own_beside_a_search(engine: TransformersEngine) -> None:
    texts = [f" Give them {word}." for word in ("water", "tea", "light", "nothing")]
    together = await asyncio.gather(*(likelihood_of(engine, PROMPT, "", text) for text in texts * 5))
    assert list(together) == [await likelihood_of(engine, PROMPT, "", text) for text in texts] * 5


async def test_a_text_that_cannot_be_read_is_named(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="half of a character"):
        await likelihood_of(engine, PROMPT, "", "\ud800")


async def test_a_model_that_fails_is_an_error_of_the_engine(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(EngineError, match="demo failed: RuntimeError: out of memory"):
        await likelihood_of(engine, PROMPT, "", " Give")
    monkeypatch.undo()
    assert (await likelihood_of(engine, PROMPT, "", " Give")).num_tokens == 1


async def test_what_a_model_rules_out_has_a_number_in_json_and_no_perplexity(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "log_likelihood", lambda *_: Likelihood(-math.inf, 3))
    found = await likelihood_of(engine, PROMPT, "", " Give")
    assert found == Likelihood(-1e12, 3)
    assert perplexity([found]) is None
    monkeypatch.setattr(engine, "log_likelihood", lambda *_: Likelihood(math.nan, 3))
    with pytest.raises(EngineError, match="demo gives no number"):
        await likelihood_of(engine, PROMPT, "", " Give")


def test_models_behind_an_interface_do_not_tell() -> None:
    assert not measures_fluency(ScriptedEngine())


@given(st.lists(st.tuples(st.floats(-500, 0), st.integers(0, 50)), max_size=5))
def test_perplexity_is_of_all_tokens_together(pairs: list[tuple[float, int]]) -> None:
    found = perplexity(Likelihood(logprob, num) for logprob, num in pairs)
    num = sum(each for _, each in pairs)
    if not num:
        assert found is None
        return
    surprise = -sum(logprob for logprob, _ in pairs) / num
    if surprise < math.log(1e12) - 1e-6:
        assert found == pytest.approx(math.exp(surprise))
    elif surprise > math.log(1e12) + 1e-6:
        assert found is None


def test_an_impossible_text_has_no_perplexity() -> None:
    assert perplexity([Likelihood(-math.inf, 3), Likelihood(-1.0, 3)]) is None
