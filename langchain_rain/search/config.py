"""The numbers a search runs on."""

from dataclasses import dataclass
from typing import Literal

SimilarityScope = Literal["all", "visited", "off"]
Proposals = Literal["resampled", "principled"]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The settings of the search; what each means, its range and its origin stand in `langchain_rain.RainConfig`.

    The defaults are those of the reference code for Anthropic's HH data; like it they ask nothing ahead. Values are not
    checked here.
    """

    token_set_lengths: tuple[int, ...] = (1, 2, 4, 10)
    num_children: int = 10
    max_children: int = 20
    num_draws: int = 9
    top_k: int = 15
    temperature: float = 1.0
    c_puct: float = 2.0
    root_mixing: float = 0.25
    max_simulations: int = 50
    min_further_simulations: int = 15
    min_visits: int = 6
    value_threshold: float = 0.8
    accept_value: float = 0.0
    rollout_until: tuple[str, ...] = (",", ".", "?", ":", ";", "\n")
    max_rollout_tokens: int | None = None
    similarity_scope: SimilarityScope = "all"
    similarity_weight: float = 0.2
    similarity_threshold: float = 0.95
    adds_children: bool = True
    spread_threshold: float = 0.03
    lookahead: int = 0
    proposals: Proposals = "resampled"
    num_parallel_leaves: int = 1
    adaptive: bool = False
    segment_lengths: tuple[int, ...] = (12, 24, 48)
    hold_back: int = 0

    def token_set_length(self, depth: int) -> int:
        """The number of tokens in the children of a node at `depth`, counted from the first root."""
        return self.token_set_lengths[min(depth, len(self.token_set_lengths) - 1)]

    def segment_length(self, num_passed: int) -> int:
        """The number of tokens that are drafted before they are judged, after `num_passed` drafts that passed."""
        return self.segment_lengths[min(num_passed, len(self.segment_lengths) - 1)]

    @property
    def needs_embeddings(self) -> bool:
        """Whether nodes need embeddings at all."""
        return self.adds_children or self.similarity_scope != "off"
