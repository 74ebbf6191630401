"""The bundled model with a cache and packed siblings searches as it does without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import langchain_rain
from langchain_rain.drivers import Outcome, run, run_batch, stream
from langchain_rain.engines.transformers import TransformersEngine
from langchain_rain.rubrics.asking import Scoring
from langchain_rain.search.config import SearchConfig
from tests.comparing import assert_same, search_job
from tests.naive_engine import NaiveEngine

FOLDER = Path(langchain_rain.__file__).parent / "models" / "demo"
PROMPT = "Human: How do I wash the bike in the garden?\n\nAssistant:"
STOP = ("\n\nHuman:",)
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}

# As published, but for fewer simulations: the oracle computes every token from the whole text.
CONFIG = SearchConfig(
    num_children=4,
    max_children=6,
    num_draws=4,
    max_simulations=6,
    min_further_simulations=3,
    min_visits=2,
    max_rollout_tokens=12,
    accept_value=-1.0,
)


@pytest.fixture(scope="module", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def model(request: pytest.FixtureRequest) -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=request.param)


@pytest.fixture(scope="module")
def demo_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.mark.parametrize("scoring", ["binary", "probability"])
def test_demo_model_searches_as_it_does_without_a_cache(model: Any, demo_tokenizer: Any, scoring: Scoring) -> None:
    settings: dict[str, Any] = {"prompt": PROMPT, "stop": STOP, "scoring": scoring, "config": CONFIG, "max_tokens": 24}
    *events, outcome = stream(search_job(TransformersEngine(model, demo_tokenizer), **settings))
    *naive_events, naive = stream(search_job(NaiveEngine(model, demo_tokenizer), **settings))
    assert isinstance(outcome, Outcome)
    assert isinstance(naive, Outcome)
    assert_same(events, naive_events, tolerance=TOLERANCE[model.dtype], where="events")
    assert_same(outcome.result, naive.result, tolerance=TOLERANCE[model.dtype], where="result")
    assert outcome.result.num_simulations > 0


def test_demo_model_searches_several_prompts_as_each_alone(model: Any, demo_tokenizer: Any) -> None:
    prompts = [PROMPT, PROMPT.replace("bike", "car"), "Human: Hello!\n\nAssistant:"]
    settings: dict[str, Any] = {"stop": STOP, "config": CONFIG, "max_tokens": 24}
    engine = TransformersEngine(model, demo_tokenizer)
    merged = run_batch([search_job(engine, prompt=prompt, **settings) for prompt in prompts])
    for prompt, outcome in zip(prompts, merged, strict=True):
        alone = run(search_job(TransformersEngine(model, demo_tokenizer), prompt=prompt, **settings))
        assert isinstance(outcome, Outcome)
        assert_same(outcome.result, alone.result, tolerance=TOLERANCE[model.dtype])
        assert outcome.cost.forward_passes == alone.cost.forward_passes
        assert outcome.cost.token_positions <= alone.cost.token_positions
