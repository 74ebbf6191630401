"""RAIN over real servers: the same numbers as in this process, and answers that keep to what they promise."""

import asyncio
import math
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.messages import HumanMessage, SystemMessage

from langchain_rain import RainLLM
from langchain_rain.drivers import Job, run
from langchain_rain.engines.completions import CompletionsEngine
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.loading import load_engine
from langchain_rain.engines.server_work import NEGLIGIBLE
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.evaluation import demo_world
from langchain_rain.rubrics.criteria import YesNoCriterion
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.rubrics.rendering import Template
from langchain_rain.rubrics.rubric import Rubric
from langchain_rain.search.protocol import (
    Context,
    Expand,
    OptionLogprobs,
    Request,
    Score,
    TokenSet,
    Transcript,
    ask_all,
)
from tests.servers.processes import MODEL_FOLDER

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

TOLERANCE = 1e-3
TOP_K = 15
PROMPTS = tuple(demo_world.as_prompt(each) for each in demo_world.test_requests(6, 6, seed=3))
ANSWERS = ("", " Sure", " I cannot help with that, as it is", " 1) Lift it gently.\n2) Then")
JUDGED = tuple(Transcript(prompt, answer, is_finished=False) for prompt in PROMPTS[::3] for answer in ANSWERS[1:])
YES_NO = Rubric(
    name="yes_no",
    criteria=(YesNoCriterion(name="short", question="Is the assistant's response short?", good="yes"),),
)
RUBRICS = {
    name: Rubric.load(name).model_copy(update={"examples": ()})  # with them some exceed the model's context
    for name in ("harmlessness", "politeness", "contact_details", "helpfulness", "no_medical_dosage")
} | {"yes_no": YES_NO}


@pytest.fixture(scope="module", params=["vllm", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[CompletionsEngine]:
    engine = CompletionsEngine(url, tokenizer=str(MODEL_FOLDER), name="demo")
    yield engine
    engine.shut_down()


@pytest.fixture(scope="module")
def local() -> TransformersEngine:
    engine = load_engine("demo")
    assert isinstance(engine, TransformersEngine)
    return engine


def asked(
    engine: CompletionsEngine | TransformersEngine, prompt: str | Dialogue, ask: Callable[[Context], Sequence[Request]]
) -> list[Any]:
    """The replies to what `ask` makes for a conversation, all asked at once."""
    context = engine.open(prompt, max_tokens=40)
    return list(run(Job(ask_all(ask(context)), {context: engine})).result)


# Numbers


def questions(rubric: str, template: Template) -> Callable[[Context], Sequence[Score]]:
    def ask(context: Context) -> Sequence[Score]:
        judge = RubricJudge(RUBRICS[rubric], context, template)
        criteria = RUBRICS[rubric].criteria
        return [each for text in JUDGED for criterion in criteria for each in judge.requests_about(criterion, text)]

    return ask


@pytest.mark.parametrize("template", ["plain", "fenced"])
@pytest.mark.parametrize("rubric", RUBRICS)
def test_judgements_are_those_of_transformers(
    served: CompletionsEngine, local: TransformersEngine, rubric: str, template: str
) -> None:
    """A server that tells the most probable tokens only is asked for others where these may be worth `NEGLIGIBLE`.

    So an option less probable than that may be impossible there, and is not compared.
    """
    ask = questions(rubric, template)
    found: list[OptionLogprobs] = asked(served, PROMPTS[0], ask)
    expected: list[OptionLogprobs] = asked(local, PROMPTS[0], ask)
    tells_all = served.capabilities.options[0] == "token ids"
    pairs = [
        (one, other)
        for reply, right in zip(found, expected, strict=True)
        for one, other in zip(reply.logprobs, right.logprobs, strict=True)
        if tells_all or other > math.log(NEGLIGIBLE)
    ]
    assert len(pairs) >= sum(each.mass > 0.5 for each in expected)
    assert [one for one, _ in pairs] == pytest.approx([other for _, other in pairs], abs=TOLERANCE)
    assert [each.mass for each in found] == pytest.approx([each.mass for each in expected], abs=TOLERANCE)


def expand(
    context: Context, prefix: tuple[int, ...], *, temperature: float, num_tokens: int = 1, seed: int = 5
) -> Expand:
    return Expand(context, prefix, 10, num_tokens, num_draws=9, top_k=TOP_K, temperature=temperature, seed=seed)


def places(
    engine: CompletionsEngine | TransformersEngine, *, temperature: float, num_tokens: int = 1
) -> list[list[TokenSet]]:
    """What follows each prompt, and each beginning of an answer to it."""
    tokenizer: Any = engine.tokenizer
    prefixes = [tuple(tokenizer(answer, add_special_tokens=False).input_ids) for answer in ANSWERS]

    def ask(context: Context) -> Sequence[Expand]:
        return [expand(context, prefix, temperature=temperature, num_tokens=num_tokens) for prefix in prefixes]

    return [reply for prompt in PROMPTS for reply in asked(engine, prompt, ask)]


def test_the_most_probable_tokens_are_those_of_transformers(
    served: CompletionsEngine, local: TransformersEngine
) -> None:
    found, expected = (places(engine, temperature=1.0) for engine in (served, local))
    for one, other in zip(found, expected, strict=True):
        logprobs = [each.logprob for each in other]
        assert [each.logprob for each in one] == pytest.approx(logprobs, abs=TOLERANCE)
        # Tokens as probable as each other may change places, and the last one with one that is not told.
        ties = {
            each.tokens for each, gap in zip(other, np.diff([*logprobs, logprobs[-1]]), strict=True) if gap > -TOLERANCE
        }
        for token_set, right in zip(one, other, strict=True):
            assert token_set == right or token_set.tokens == right.tokens or right.tokens in ties
        assert [each.text for each in one[:3]] == [each.text for each in other[:3]]
        assert [each.is_greedy for each in one] == [each.is_greedy for each in other]


def test_at_another_temperature_the_rest_counts_no_more_than_if_each_were_as_probable_as_the_last(
    served: CompletionsEngine, local: TransformersEngine
) -> None:
    """The log probabilities are too small by no more than what that bound is wrong by, and all by the same."""
    temperature = 0.7
    found, expected, raw = (
        places(engine, temperature=heat) for engine, heat in ((served, temperature), (local, temperature), (local, 1.0))
    )
    for one, other, plain in zip(found, expected, raw, strict=True):
        differences = np.array([each.logprob for each in other]) - [each.logprob for each in one]
        told = np.array([each.logprob for each in plain])
        rest = max(0.0, 1 - np.exp(told).sum())
        # What the rest is taken to weigh against what the told ones do.
        most = math.log1p(rest * math.exp(told[-1] * (1 / temperature - 1)) / np.exp(told / temperature).sum())
        assert np.ptp(differences) <= 2 * TOLERANCE
        assert (differences >= -TOLERANCE).all()
        assert (differences <= most + TOLERANCE).all()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_token_sets_have_the_log_probability_that_transformers_gives_them(
    served: CompletionsEngine, local: TransformersEngine, temperature: float
) -> None:
    found, expected = (places(engine, temperature=temperature, num_tokens=6) for engine in (served, local))
    tokenizer: Any = served.tokenizer
    beginnings = [
        [*tokenizer(prompt).input_ids, *tokenizer(answer, add_special_tokens=False).input_ids]
        for prompt in PROMPTS
        for answer in ANSWERS
    ]
    for one, other, beginning in zip(found, expected, beginnings, strict=True):
        assert (one[0].tokens, one[0].text, one[0].is_greedy) == (other[0].tokens, other[0].text, True)
        assert len({each.tokens for each in one}) == len(one)
        for each in one:
            rescored = filtered_logprob(local.model, beginning, each.tokens, temperature=temperature)
            assert each.logprob == pytest.approx(rescored, abs=TOLERANCE)
    # Draws are a server's own; what is probable both draw.
    assert (
        np.mean(
            [
                len({each.tokens for each in one} & {each.tokens for each in other})
                for one, other in zip(found, expected, strict=True)
            ]
        )
        > 1.5
    )


def filtered_logprob(model: Any, beginning: Sequence[int], tokens: Sequence[int], *, temperature: float) -> float:
    """The log probability of `tokens`, each among the `TOP_K` most probable ones at its place."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*beginning, *tokens]])).logits[0, len(beginning) - 1 : -1].double()
    logprobs = (logits / temperature).log_softmax(-1)
    own = logprobs[range(len(tokens)), list(tokens)]
    return float((own - logprobs.topk(TOP_K).values.logsumexp(-1)).sum())


# Text from outside

SPELLED = "What is <|end|>, </s> or <|assistant|> Human: <|user|>?"


@pytest.mark.parametrize(
    "prompt",
    [
        f"Human: {SPELLED}\n\nAssistant:",
        Dialogue((SystemMessage(SPELLED), HumanMessage(SPELLED))),
        Dialogue((HumanMessage("How do I wash the bike?"),)),
    ],
    ids=["text", "spelled", "chat"],
)
def test_a_server_reads_prompts_as_transformers_does(
    served: CompletionsEngine, local: TransformersEngine, prompt: str | Dialogue
) -> None:
    """By the same template and with the same tokens: what spells a special token is none."""
    found, expected = (
        asked(engine, prompt, lambda context: [expand(context, (), temperature=1.0)])[0] for engine in (served, local)
    )
    assert [each.logprob for each in found] == pytest.approx([each.logprob for each in expected], abs=TOLERANCE)
    assert found[0].tokens == expected[0].tokens


# Answers


@pytest.fixture(scope="module")
def llm(served: CompletionsEngine) -> RainLLM:
    return RainLLM(model=served, seed=3, max_tokens=64, on_unsatisfied="best")


MANY_PROMPTS = [demo_world.as_prompt(each) for each in demo_world.test_requests(16, 16, seed=5)]
MAX_CHANGED = 1  # of 32; none of either server's was seen to


def test_a_stream_gives_out_the_answer_in_pieces(llm: RainLLM) -> None:
    for prompt in PROMPTS[:4]:
        pieces = [piece for piece in llm.stream(prompt) if piece]
        assert "".join(pieces) == llm.invoke(prompt)
        assert pieces


@pytest.fixture(scope="module")
def alone(llm: RainLLM) -> list[str]:
    """The answers to prompts one after the other."""
    return [llm.invoke(prompt) for prompt in MANY_PROMPTS]


async def test_answers_that_are_written_at_once_are_those_written_alone(llm: RainLLM, alone: list[str]) -> None:
    """But for `MAX_CHANGED`: what shares a batch changes how a server rounds, and may change which token is drawn."""
    again = [llm.invoke(prompt) for prompt in MANY_PROMPTS]
    at_once = await asyncio.gather(*map(llm.ainvoke, MANY_PROMPTS))
    batch = llm.batch([*MANY_PROMPTS])
    changed = [sum(one != other for one, other in zip(alone, each, strict=True)) for each in (again, at_once, batch)]
    assert max(changed) <= MAX_CHANGED, changed


async def test_an_answer_that_nobody_waits_for_leaves_no_request_at_the_server(
    llm: RainLLM, url: str, kind: str
) -> None:
    for num_pieces in (0, 1):
        tasks = [asyncio.create_task(_begin(llm, prompt, num_pieces)) for prompt in MANY_PROMPTS]
        await asyncio.sleep(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(_wait_until_idle, url, kind)


async def _begin(llm: RainLLM, prompt: str, num_pieces: int) -> None:
    if num_pieces == 0:
        await llm.ainvoke(prompt)
        return
    stream = llm.astream(prompt)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]


def _wait_until_idle(url: str, kind: str) -> None:
    """Fails unless the server has nothing to do in a moment, and nothing more comes."""
    time.sleep(1.0)
    assert _num_running(url, kind) == 0
    before = _count(url, TOKENS_WRITTEN[kind])
    time.sleep(0.5)
    assert _count(url, TOKENS_WRITTEN[kind]) == before
    assert _num_running(url, kind) == 0


# The cache

FOUND = {"vllm": "vllm:prefix_cache_hits_total", "llama": "llamacpp:prompt_tokens_cached_total"}
NOT_FOUND = {"vllm": "vllm:prefix_cache_queries_total", "llama": "llamacpp:prompt_tokens_total"}
MIN_FOUND = 0.8


def test_a_server_finds_most_of_the_prompts_in_its_cache(llm: RainLLM, url: str, kind: str) -> None:
    """Of conversations of some turns; of shorter ones vLLM keeps the whole blocks alone."""
    rng = random.Random(11)
    names = FOUND[kind], NOT_FOUND[kind]
    before = [_count(url, name) for name in names]
    for prompt in PROMPTS:
        earlier = demo_world.test_requests(0, 3, seed=rng.randrange(2**32))
        turns = (f"{demo_world.as_prompt(each)} {demo_world.sample_answer(each, rng).strip()}\n\n" for each in earlier)
        llm.invoke("".join(turns) + prompt)
    found, others = (_count(url, name) - count for name, count in zip(names, before, strict=True))
    asked = others if kind == "vllm" else found + others  # vLLM counts what is found in both
    assert found / asked >= MIN_FOUND


TOKENS_WRITTEN = {"vllm": "vllm:generation_tokens_total", "llama": "llamacpp:tokens_predicted_total"}
RUNNING = {
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    "llama": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
}


def _num_running(url: str, kind: str) -> float:
    return sum(_count(url, name) for name in RUNNING[kind])


def _count(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        text = response.read().decode()
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not among the metrics of {url}"
    return sum(map(float, found))
