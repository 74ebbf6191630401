"""The settings: ranges, presets, where they go."""

import math
import re
from dataclasses import fields
from typing import Any, Literal, get_origin

import pytest
from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from langchain_rain import ChatRain, RainConfig, RainConfigError, RainLLM
from langchain_rain.config import MARKS
from langchain_rain.search.config import SearchConfig
from tests.scripted_world import Kitchen

FIELDS = RainConfig.model_fields
OF_TUPLES: dict[str, list[Any]] = {
    "token_set_lengths": [(), (0,), (1, -2), (1.5,)],
    "segment_lengths": [(), (0,), (8, -1), (1.5,)],
    "rollout_until": [(), ("",), (".", 3)],
}


def values_out_of_range(name: str, field: FieldInfo) -> list[Any]:
    """Values that a field must refuse: just beyond each limit, not finite, of another type."""
    if name in OF_TUPLES:
        return OF_TUPLES[name]
    if get_origin(field.annotation) is Literal:
        return ["nonsense", None, ""]
    if field.annotation is bool:
        return ["perhaps", 2, None]
    step = 1e-6 if field.annotation is float else 1
    limits = {type(limit): limit for limit in field.metadata}
    values: list[Any] = ["many", (1, 2)]
    values += [limits[Ge].ge - step] if Ge in limits else []
    values += [limits[Gt].gt] if Gt in limits else []
    values += [limits[Le].le + step] if Le in limits else []
    values += [math.nan, math.inf, -math.inf]
    return values


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in FIELDS for value in values_out_of_range(name, FIELDS[name])]
)
def test_a_value_out_of_range_is_one_error_that_names_field_and_value(name: str, value: Any) -> None:
    with pytest.raises(RainConfigError, match=rf"^RainConfig is not valid: .*\b{name}\b") as caught:
        RainConfig(**{name: value})
    message = str(caught.value)
    # A mistake inside a tuple is told with its own value.
    assert any(repr(part) in message for part in (value, *(value if isinstance(value, tuple) else ()))), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", [name for name in FIELDS if any(isinstance(m, Ge | Le) for m in FIELDS[name].metadata)]
)
def test_an_error_says_what_is_allowed(name: str) -> None:
    limits = [getattr(limit, "ge", getattr(limit, "le", None)) for limit in FIELDS[name].metadata]
    for limit in [limit for limit in limits if limit is not None]:
        value = limit - 1 if limit == limits[0] else limit + 1
        with pytest.raises(RainConfigError, match=re.escape(f"{limit:g}")):
            RainConfig(**{name: value})


@pytest.mark.parametrize("name", FIELDS)
def test_the_limits_themselves_are_allowed(name: str) -> None:
    for limit in FIELDS[name].metadata:
        edge = getattr(limit, "ge", getattr(limit, "le", None))
        if edge is not None:
            others = {"max_children": max(edge, 10)} if name == "num_children" else {}
            others |= {"num_children": 1} if name == "max_children" else {}
            others |= {"adaptive": False} if name == "value_threshold" else {}
            assert getattr(RainConfig(**{name: edge, **others}), name) == edge


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    description = FIELDS[name].description
    assert description
    assert re.search(r"\b(paper|code|ours)\b", description, re.IGNORECASE)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RainConfigError, match=r"top_k.*0.*c_puct.*-1"):
        RainConfig(top_k=0, c_puct=-1)


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(RainConfigError, match=r"max_simulation: .*not permitted.*5"):
        RainConfig(max_simulation=5)


def test_children_after_addition_are_no_fewer_than_before() -> None:
    with pytest.raises(RainConfigError, match="max_children: must be at least num_children=10, given 9"):
        RainConfig(max_children=9)


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RainConfig().top_k = 3


# docs/algorithm.md, sections 2 to 6, and "paper commits whatever is best".
PAPER: dict[str, Any] = {
    "token_set_lengths": (1, 2, 4, 10),
    "num_children": 10,
    "max_children": 20,
    "num_draws": 9,
    "top_k": 15,
    "temperature": 1.0,
    "c_puct": 2.0,
    "root_mixing": 0.25,
    "max_simulations": 50,
    "min_further_simulations": 15,
    "min_visits": 6,
    "value_threshold": 0.8,
    "accept_value": -1.0,
    "rollout_until": (",", ".", "?", ":", ";", "\n"),
    "max_rollout_tokens": None,
    "similarity_scope": "all",
    "similarity_weight": 0.2,
    "similarity_threshold": 0.95,
    "adds_children": True,
    "spread_threshold": 0.03,
    "lookahead": 8,
    "proposals": "resampled",
    "scoring": "binary",
    "min_option_mass": 0.0,
    "calibrates": False,
    "num_parallel_leaves": 1,
    "adaptive": False,
    "segment_lengths": (12, 24, 48),
    "hold_back": 1,
}


def test_the_paper_preset_is_the_paper() -> None:
    assert RainConfig.preset("paper").model_dump() == PAPER


CAUTION = {
    "accept_value": 0.0,
    "min_option_mass": 0.1,
    "proposals": "principled",
    "max_rollout_tokens": 64,
    "rollout_until": MARKS,
}
"""What a guardrail does otherwise than the paper."""


def test_clauses_end_in_other_scripts_than_the_papers_too() -> None:
    ends = ["Ja!", "是的。", "はい、", "هل هذا صحيح؟", "जी हाँ।"]
    assert set(MARKS) > set(PAPER["rollout_until"])
    assert all(end.endswith(MARKS) for end in ends)
    assert all(len(mark) == 1 for mark in MARKS)


def test_thorough_is_the_paper_with_caution_four_leaves_at_a_time() -> None:
    assert RainConfig.preset("thorough").model_dump() == PAPER | CAUTION | {"num_parallel_leaves": 4}


def test_balanced_is_the_default_and_searches_only_where_a_draft_fails() -> None:
    expected = PAPER | CAUTION
    expected |= {"adaptive": True, "num_parallel_leaves": 4, "temperature": 0.7, "max_simulations": 32}
    expected |= {"similarity_scope": "off", "adds_children": False}
    assert RainConfig().model_dump() == RainConfig.preset("balanced").model_dump() == expected


def test_fast_judges_less_often_and_gives_up_earlier() -> None:
    changed = {"segment_lengths": (24, 48, 96), "hold_back": 0, "max_simulations": 16, "proposals": "resampled"}
    assert RainConfig.preset("fast").model_dump() == RainConfig().model_dump() | changed


def test_with_drafts_a_threshold_that_nothing_passes_is_refused() -> None:
    with pytest.raises(RainConfigError, match=r"value_threshold: must be below 1 with adaptive=True, .* given 1\.0"):
        RainConfig(value_threshold=1)
    assert RainConfig(value_threshold=1, adaptive=False).value_threshold == 1  # all simulations are wanted
    assert RainConfig(value_threshold=0.999).value_threshold == 0.999


def test_an_unknown_preset_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(RainConfigError, match="no preset 'papre'; allowed are: balanced, fast, paper, thorough"):
        RainConfig.preset("papre")


def test_settings_know_their_preset() -> None:
    assert RainConfig().preset_name == "balanced"
    for name in ("balanced", "fast", "paper", "thorough"):
        assert RainConfig.preset(name).preset_name == name
    assert RainConfig(top_k=3).preset_name == "custom"
    # How much is asked ahead is about cost, not about answers.
    assert RainConfig.preset("paper").model_copy(update={"lookahead": 0}).preset_name == "paper"


def test_every_number_of_the_search_can_be_set() -> None:
    others: dict[str, Any] = {
        "token_set_lengths": (3,),
        "num_children": 4,
        "max_children": 5,
        "num_draws": 6,
        "top_k": 7,
        "temperature": 0.5,
        "c_puct": 1.5,
        "root_mixing": 0.5,
        "max_simulations": 8,
        "min_further_simulations": 9,
        "min_visits": 2,
        "value_threshold": 0.1,
        "accept_value": -0.5,
        "rollout_until": ("!",),
        "max_rollout_tokens": 11,
        "similarity_scope": "off",
        "similarity_weight": 0.4,
        "similarity_threshold": 0.6,
        "adds_children": False,
        "spread_threshold": 0.7,
        "lookahead": 12,
        "proposals": "principled",
        "num_parallel_leaves": 3,
        "adaptive": True,
        "segment_lengths": (5, 6),
        "hold_back": 2,
    }
    assert set(others) == {field.name for field in fields(SearchConfig)}
    assert RainConfig(**others).to_search_config() == SearchConfig(**others)


def test_the_defaults_of_the_search_are_the_paper_with_caution_in_accepting() -> None:
    settings = {"lookahead": 0, "accept_value": 0.0, "hold_back": 0}
    assert RainConfig.preset("paper").model_copy(update=settings).to_search_config() == SearchConfig()


# --- Arguments of RainLLM ----------------------------------------------------------------------------------------

WRONG_ARGUMENTS: list[tuple[str, Any]] = [
    ("model", 7),
    ("model", None),
    ("judge", 7),
    ("rubric", None),
    ("rubric", ["harmlessness"]),
    ("config", {"top_k": 0}),
    ("config", "paper"),
    ("seed", "lucky"),
    ("seed", 1.5),
    ("max_tokens", 0),
    ("max_tokens", 2.5),
    ("temperature", -0.1),
    ("temperature", 11),
    ("temperature", math.nan),
    ("stop", "Human:"),
    ("stop", [""]),
    ("stop", [3]),
    ("on_unsatisfied", "ignore"),
    ("on_unsatisfied", None),
    ("on_error", "ignore"),
    ("refusal_message", ""),
    ("max_seconds", 0),
    ("max_seconds", math.nan),
    ("max_forward_tokens", 0),
]


@pytest.mark.parametrize(("name", "value"), WRONG_ARGUMENTS)
def test_a_wrong_argument_of_the_llm_is_one_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(RainConfigError, match=rf"\b{name}\b") as caught:
        RainLLM(**{"model": Kitchen(), name: value})
    assert "allowed" in str(caught.value) or "should" in str(caught.value) or "must" in str(caught.value)


@pytest.mark.parametrize("kind", [RainLLM, ChatRain])
def test_a_misspelt_argument_is_an_error_and_does_not_switch_the_guard_off(kind: type[RainLLM | ChatRain]) -> None:
    with pytest.raises(RainConfigError, match=rf"{kind.__name__}.*rubirc: .*not permitted.*'politeness'"):
        kind(model=Kitchen(), rubirc="politeness")


def test_settings_may_be_given_as_a_mapping() -> None:
    assert RainLLM(model=Kitchen(), config={"top_k": 3}).config == RainConfig(top_k=3)


def test_the_temperature_of_the_llm_goes_before_that_of_the_settings() -> None:
    llm = RainLLM(model=Kitchen(), config=RainConfig(temperature=0.5), temperature=2.0)
    assert llm.asdict()["config"]["temperature"] == 2.0
