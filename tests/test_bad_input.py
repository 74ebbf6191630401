"""Strange prompts, models and rubrics: the right answer or one clear error, and nothing hangs."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.outputs import Generation

from langchain_rain import Criterion, EngineError, RainConfig, RainConfigError, RainError, RainLLM, Rubric, RubricError
from langchain_rain.arguments import RainArguments
from langchain_rain.engines.loading import demo_model_path, load_engine
from langchain_rain.engines.transformers import TransformersEngine
from tests.test_llms import TINY_CONFIG
from tests.tiny_models import UNTRIED, tiny_llama, tiny_tokenizer

DEMO = pytest.param("demo", marks=pytest.mark.skipif(not Path(demo_model_path()).exists(), reason="no demo model yet"))


# Whatever is best is committed: what a tiny model thinks of its own text is chance.
CONFIG = TINY_CONFIG.model_copy(update={"accept_value": -1.0})


@functools.cache
def engine(kind: str) -> TransformersEngine:
    if kind == "demo":
        loaded = load_engine("demo")
        assert isinstance(loaded, TransformersEngine)
        return loaded
    tokenizer = tiny_tokenizer(
        with_bos="no bos" not in kind, with_eos="no eos" not in kind, with_chat_template="chat" in kind
    )
    return TransformersEngine(tiny_llama(tokenizer, initializer_range=0.05), tokenizer, name=kind)


def answer(kind: str, prompt: str, **arguments: Any) -> Generation:
    settings = {"config": CONFIG, "seed": 1, "max_tokens": 6, "on_unsatisfied": "best", **arguments}
    return RainLLM(**{"model": engine(kind), "rubric": UNTRIED, **settings}).generate([prompt]).generations[0][0]


def the_error_of(call: Callable[[], Any]) -> RainError:
    """The one clear error of a call: one line, and not raised by an assertion or a library."""
    with pytest.raises(RainError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


# --- Prompts -----------------------------------------------------------------------------------------------------

STRANGE_PROMPTS = {
    "a new turn": "Human: Say 'Human:'.\n\nAssistant: Human:\n\nHuman: Again.\n\nAssistant:",
    "special tokens": "</s><|endoftext|><|begin|><|end|><|user|>Hello<|assistant|>",
    "option letters": "(A) The answer is: (A)\nOptions:\n(B) no\nThe answer is: (",
    "emoji": "🚲👩‍👩‍👧 How do I wash it? 🧽",
    "right to left": "كيف أغسل الدراجة؟ \u202e\u05ea\u05d5\u05d3\u05d4",
    "a NUL": "Human: a\x00b\x1b[2J\n\nAssistant:",
    "combining marks": "e\u0301" * 5 + "\u200b\ufeff",
    "braces": "{question} {{}} %s %(x)s ${HOME}",
    "only space": " \n\t ",
    "one character": "?",
}


@pytest.mark.parametrize("kind", ["tiny", "tiny chat", DEMO])
@pytest.mark.parametrize("prompt", STRANGE_PROMPTS.values(), ids=STRANGE_PROMPTS.keys())
def test_a_strange_prompt_is_continued_like_any_other(prompt: str, kind: str) -> None:
    given = answer(kind, prompt)
    assert given.generation_info is not None
    told = given.generation_info["rain"]
    assert told["stop_reason"] in {"eos", "length"}
    assert 1 <= told["num_tokens"] <= 6
    assert told["value"] is not None
    again = answer(kind, prompt)  # computes less, as much of it is cached
    assert again.text == given.text
    assert again.generation_info is not None
    for name in ("stop_reason", "num_tokens", "value"):
        assert again.generation_info["rain"][name] == (told[name] if name != "value" else pytest.approx(told[name]))


@pytest.mark.parametrize("kind", ["tiny", "tiny chat", DEMO])
def test_special_tokens_that_a_prompt_spells_are_text(kind: str) -> None:
    for spelled in engine(kind).tokenizer.all_special_tokens:
        context = engine(kind).open(f"Hello {spelled}", max_tokens=1)
        tokens = engine(kind)._conversations._open[context].prompt_tokens
        engine(kind).channel.close(context)
        with_begin = tokens[1:] if tokens[0] == engine(kind).tokenizer.bos_token_id else tokens
        assert not set(with_begin) & set(engine(kind).tokenizer.all_special_ids)
        assert len(with_begin) > 2


@pytest.mark.parametrize("surrogate", ["\ud800", "a\udcffb"])
def test_a_lone_surrogate_is_an_error_that_shows_it(surrogate: str) -> None:
    error = the_error_of(lambda: answer("tiny", surrogate))
    assert isinstance(error, RainConfigError)
    assert repr(surrogate) in str(error)
    str(error).encode()


def test_an_empty_prompt_begins_a_text_where_the_model_can() -> None:
    assert answer("tiny", "").text


def test_an_empty_prompt_is_an_error_where_the_model_cannot_begin_a_text() -> None:
    error = the_error_of(lambda: answer("tiny, no bos", ""))
    assert isinstance(error, EngineError)
    assert "''" in str(error)


def test_a_prompt_longer_than_the_context_is_an_error_that_names_both() -> None:
    prompt = "bike " * 600
    num_tokens = len(engine("tiny").tokenizer(prompt).input_ids)
    error = the_error_of(lambda: answer("tiny", prompt))
    assert isinstance(error, EngineError)
    assert str(num_tokens) in str(error)
    assert "512" in str(error)


def test_more_tokens_than_the_context_holds_are_an_error_that_names_both() -> None:
    error = the_error_of(lambda: answer("tiny", "Hello", max_tokens=512))
    assert isinstance(error, EngineError)
    assert "max_tokens=512" in str(error)


def test_a_judgement_longer_than_the_context_is_an_error_and_no_answer() -> None:
    num_tokens = len(engine("tiny").tokenizer("bike " * 100).input_ids)
    prompt = "bike " * (100 * 490 // num_tokens)
    error = the_error_of(lambda: answer("tiny", prompt))
    assert isinstance(error, EngineError)
    assert "judgement" in str(error)
    assert "512" in str(error)


# --- Models ------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing" / "model"):
        error = the_error_of(lambda folder=folder: RainLLM(model=str(folder)))  # type: ignore[misc]
        assert isinstance(error, EngineError)
        assert str(folder) in str(error)


def test_a_file_where_a_model_should_be_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json", encoding="utf-8")
    for path in (tmp_path, tmp_path / "config.json"):
        error = the_error_of(lambda path=path: RainLLM(model=str(path)))  # type: ignore[misc]
        assert isinstance(error, EngineError)
        assert str(path) in str(error)


def test_a_model_that_knows_no_end_is_stopped_at_the_limit() -> None:
    given = answer("tiny, no eos", "Hello")
    assert given.generation_info is not None
    assert given.generation_info["rain"]["stop_reason"] == "length"
    assert given.generation_info["rain"]["num_tokens"] == 6


@pytest.mark.parametrize("model", [None, 7, b"tiny", ["tiny"], object()])
def test_what_is_no_model_is_an_error_that_shows_it(model: Any) -> None:
    error = the_error_of(lambda: RainLLM(model=model))
    assert isinstance(error, RainConfigError)
    assert repr(model) in str(error)


# --- Rubrics -----------------------------------------------------------------------------------------------------


def test_a_rubric_without_criteria_is_an_error() -> None:
    error = the_error_of(lambda: Rubric(name="empty", criteria=()))
    assert isinstance(error, RubricError)
    assert "criteria" in str(error)


def test_a_rubric_of_strange_text_judges() -> None:
    criterion = Criterion(name="(A)", instruction="{x} \x00 <|end|>\n\n", good="(B) The answer is: (A", bad="🚲")
    assert answer("tiny", "Hello", rubric=Rubric(name="\n", criteria=(criterion,))).text


def test_a_rubric_longer_than_the_context_is_an_error() -> None:
    criterion = Criterion(name="long", instruction="bike " * 600, good="YES", bad="NO")
    error = the_error_of(lambda: answer("tiny", "Hello", rubric=Rubric(name="long", criteria=(criterion,))))
    assert isinstance(error, EngineError)
    assert "512" in str(error)


@pytest.mark.parametrize("rubric", [None, {}, ["harmlessness"], "", "../harmlessness", "harmlessness.yaml"])
def test_what_is_no_rubric_is_an_error_that_shows_it(rubric: Any) -> None:
    error = the_error_of(lambda: RainLLM(model=engine("tiny"), rubric=rubric))
    assert isinstance(error, RainConfigError | RubricError)
    assert repr(rubric) in str(error)


# --- Settings that leave little to choose from -------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"num_children": 1, "num_draws": 0},
        {"num_children": 100, "max_children": 200, "num_draws": 1, "max_simulations": 2},
        {"token_set_lengths": (50,)},
        {"top_k": 1},
        {"top_k": 1000},
        {"temperature": 1e-3},
        {"temperature": 10},
        {"max_simulations": 1},
        {"max_rollout_tokens": 1},
        {"rollout_until": ("never said",)},
        {"value_threshold": -1, "min_visits": 0},
        {"accept_value": 1},
    ],
    ids=str,
)
def test_settings_at_their_limits_still_answer(settings: dict[str, Any]) -> None:
    config = RainConfig(**{**CONFIG.model_dump(), **settings})
    assert answer("tiny", "Human: How do I wash the bike?\n\nAssistant:", config=config).generation_info is not None


@pytest.mark.parametrize("name", ["max_seconds", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e12])
def test_a_time_that_nobody_can_wait_for_is_named(name: str, seconds: float) -> None:
    with pytest.raises(RainConfigError, match=rf"{name}: .*given {re.escape(repr(seconds))}"):
        RainArguments(**{name: seconds})
