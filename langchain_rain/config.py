"""The settings of a search as users give them: checked, documented, with presets."""

from dataclasses import fields
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from langchain_rain.errors import RainConfigError, describe_mistakes
from langchain_rain.search.config import SearchConfig

MARKS = (*SearchConfig().rollout_until, "!", *"，、。？！：；", *"،؛؟۔", "।")  # noqa: RUF001 - marks of other scripts
"""What ends a clause: in Latin, Greek and Cyrillic, in Chinese and Japanese, in Arabic and Urdu, and in Devanagari."""

PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "fast": {"segment_lengths": (24, 48, 96), "hold_back": 0, "max_simulations": 16, "proposals": "resampled"},
    "thorough": {
        "adaptive": False,
        "temperature": 1.0,
        "similarity_scope": "all",
        "adds_children": True,
        "max_simulations": 50,
    },
    "paper": {
        "adaptive": False,
        "num_parallel_leaves": 1,
        "temperature": 1.0,
        "max_simulations": 50,
        "rollout_until": SearchConfig().rollout_until,
        "max_rollout_tokens": None,
        "similarity_scope": "all",
        "adds_children": True,
        "accept_value": -1.0,
        "min_option_mass": 0.0,
        "proposals": "resampled",
    },
}
"""What a preset changes of the defaults, which are `balanced`. `fast` judges less often and gives up earlier,
`thorough` searches every token set, `paper` does it as published: it commits whatever is best and never abstains."""


class RainConfig(BaseModel):
    """How RAIN searches. The defaults are the preset `balanced`: it drafts, and searches only where a draft fails.

    Origins: "paper" is arXiv 2309.07124, "code" its reference implementation for Anthropic's HH data, "ours" this
    project. A value out of range is a `RainConfigError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_set_lengths: tuple[int, ...] = Field(
        default=(1, 2, 4, 10),
        min_length=1,
        description="Tokens in a token set by depth, each at least 1; the last repeats. With `adaptive` every segment "
        "is one deeper. Code.",
    )
    num_children: int = Field(
        default=10,
        ge=1,
        le=100,
        description="Children of a node when expanded; drafts of a chat model at most. Code.",
    )
    max_children: int = Field(
        default=20, ge=1, le=200, description="Children after dynamic addition, at least num_children. Code."
    )
    num_draws: int = Field(default=9, ge=0, le=100, description="Samples drawn for longer token sets. Code.")
    top_k: int = Field(default=15, ge=1, le=1000, description="Most probable tokens that samples come from. Code.")
    temperature: float = Field(
        default=0.7,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Of all sampling; 0 is greedy. With `adaptive` of drafts; where one has failed at least 0.7. Ours; "
        "1 in `paper` and `thorough` (code; AdvBench: 2).",
    )
    c_puct: float = Field(
        default=2.0, ge=0, le=100, allow_inf_nan=False, description="Weight of exploration; c, equation 1. Paper."
    )
    root_mixing: float = Field(
        default=0.25, ge=0, le=1, description="Uniform share in the priors of the root's children. Code."
    )
    max_simulations: int = Field(
        default=32,
        ge=1,
        le=100_000,
        description="Simulations per token set; with `adaptive` where a draft has failed, and again for each segment "
        "that is taken back, clauses under guidance on top; T. Ours; 50 in `paper` (code).",
    )
    min_further_simulations: int = Field(
        default=15,
        ge=1,
        le=100_000,
        description="Always allowed after a move, up to max_simulations. Of no effect with `adaptive`. Code.",
    )
    min_visits: int = Field(
        default=6,
        ge=0,
        le=100_000,
        description="The best child needs more visits to stop; T_m. Of no effect with `adaptive`, where one text that "
        "passes is enough. Code (TruthfulQA: 16, AdvBench: 5).",
    )
    value_threshold: float = Field(
        default=0.8,
        ge=-1,
        le=1,
        description="The best child needs a higher value to stop the search; with `adaptive` a draft to pass, so it is "
        "below 1; V. Code.",
    )
    accept_value: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Lowest direct judgement to commit by when the search ended below V; an answer is satisfied above "
        "it. Ours; -1 in `paper`.",
    )
    rollout_until: tuple[str, ...] = Field(
        default=MARKS,
        min_length=1,
        description="A rollout, or clause of a draft, ends with one of these, none empty. Ours: marks of several "
        "scripts; `, . ? : ;` and line ends in `paper` (code).",
    )
    max_rollout_tokens: int | None = Field(
        default=64,
        ge=1,
        description="Longest rollout, or clause of a draft, in tokens; None: to the answer's limit. Ours; None in "
        "`paper` (code).",
    )
    similarity_scope: Literal["all", "visited", "off"] = Field(
        default="off",
        description='Siblings that may receive a value: "all" (paper), "visited" (code), or "off".',
    )
    similarity_weight: float = Field(
        default=0.2, ge=0, le=1, description="Share that a similar sibling receives; gamma, equation 4. Paper."
    )
    similarity_threshold: float = Field(
        default=0.95, ge=-1, le=1, description="Cosine from which siblings are similar; depends on the encoder. Code."
    )
    adds_children: bool = Field(
        default=False, description="Whether a node gets another child when all are alike and bad. Paper."
    )
    spread_threshold: float = Field(
        default=0.03,
        ge=0,
        le=10,
        description="Spread of embeddings below which children are alike, per token, for dimension 384. Code.",
    )
    num_parallel_leaves: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Simulations that go side by side, each knowing where the others went: fewer forward passes, a "
        "little less informed. Ours; 1 in `paper`.",
    )
    adaptive: bool = Field(
        default=True,
        description="Whether the answer is drafted and judged in segments, and searched only where one fails. Of no "
        "effect over chat models, whose drafts are whole messages; nor are the settings that go with it. Ours; off in "
        "`paper`, where every token set is searched.",
    )
    segment_lengths: tuple[int, ...] = Field(
        default=(12, 24, 48),
        min_length=1,
        description="With `adaptive`: tokens that are drafted, to the end of their last clause, before they are "
        "judged: at first, after one segment that passed, and so on; the last repeats. Ours.",
    )
    hold_back: int = Field(
        default=1,
        ge=0,
        le=100,
        description="With `adaptive`: segments that passed and are not released yet, so that the search can take them "
        "back. Ours.",
    )
    lookahead: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Requests of the simulations to come that may be under way (with `adaptive` the next clause, while "
        "a draft is judged): fewer forward passes one after another, more token positions (which count towards "
        "budgets), the same answer up to rounding. Ours; 0 asks nothing ahead.",
    )
    proposals: Literal["resampled", "principled"] = Field(
        default="principled",
        description='Drafts of a chat model after one that failed: drawn again ("resampled"), or told what the rubric '
        'wants ("principled"); with `adaptive` clauses are asked for so where a search has found nothing. Of no effect '
        'where every token set is searched. Ours; "resampled" in `paper`.',
    )
    scoring: Literal["binary", "probability"] = Field(
        default="binary", description='How option probabilities become a value: "binary" (code), "probability" (paper).'
    )
    min_option_mass: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="A judge with no more probability on its options abstains. Ours; 0 in `paper`.",
    )
    calibrates: bool = Field(
        default=False,
        description="Whether what a judge prefers among its options without content is taken out. Ours.",
    )

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes("RainConfig", error)) from error

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if min(self.token_set_lengths) < 1:
            raise ValueError(f"token_set_lengths: each must be at least 1, given {self.token_set_lengths!r}")
        if min(self.segment_lengths) < 1:
            raise ValueError(f"segment_lengths: each must be at least 1, given {self.segment_lengths!r}")
        if self.adaptive and self.value_threshold == 1:
            raise ValueError(
                "value_threshold: must be below 1 with adaptive=True, as a draft passes above it, "
                f"given {self.value_threshold!r}"
            )
        if self.max_children < self.num_children:
            raise ValueError(
                f"max_children: must be at least num_children={self.num_children}, given {self.max_children}"
            )
        if "" in self.rollout_until:
            raise ValueError(f"rollout_until: marks must not be empty, given {self.rollout_until!r}")
        return self

    @classmethod
    def preset(cls, name: str) -> "RainConfig":
        """Returns the configuration of a preset: "balanced", "fast", "thorough" or "paper".

        Raises:
            RainConfigError: there is no such preset.
        """
        if name not in PRESETS:
            raise RainConfigError(f"There is no preset {name!r}; allowed are: {', '.join(sorted(PRESETS))}.")
        return cls(**PRESETS[name])

    @property
    def preset_name(self) -> str:
        """The preset that these settings are but for `lookahead`, which is about cost; or "custom"."""
        presets = {name: RainConfig.preset(name) for name in PRESETS}
        asking_alike = self.model_copy(update={"lookahead": RainConfig().lookahead})
        return next((name for name, preset in presets.items() if asking_alike == preset), "custom")

    def to_search_config(self) -> SearchConfig:
        """The part of the settings that the search itself works with."""
        return SearchConfig(**{field.name: getattr(self, field.name) for field in fields(SearchConfig)})
