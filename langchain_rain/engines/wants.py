"""What a step of the engine is asked: questions about places in texts. No tensors here, no model."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from langchain_rain.engines.prefix_tree import CachedToken
from langchain_rain.search.protocol import Tokens


@dataclass(slots=True, eq=False)
class Place:
    """Where in a text something is asked: after `tokens`, which follow those of `start`.

    Attributes:
        reached: the last of all these tokens that is in the cache, as a runner has found it last.
    """

    start: "Place | None"
    tokens: Tokens
    reached: CachedToken | None = None

    def after(self, token: int) -> "Place":
        """One token further."""
        return Place(self.start, (*self.tokens, token), self.reached)

    @property
    def sequence(self) -> Tokens:
        """All tokens of the text up to here."""
        return self.tokens if self.start is None else self.start.sequence + self.tokens

    @property
    def num_tokens(self) -> int:
        """How many they are."""
        return len(self.tokens) + (0 if self.start is None else self.start.num_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class MostProbable:
    """Which `count` tokens are the most probable at `place`? Answered by ids and log probabilities, in order."""

    place: Place
    temperature: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Which token does each of `uniforms` in [0, 1) pick at `place`?

    From the full distribution, or from the `top_k` most probable tokens, then renormalised over them: a uniform of 0
    picks the most probable one.
    """

    place: Place
    temperature: float
    uniforms: tuple[float, ...]
    top_k: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Probability:
    """How probable are these tokens at `place`? Answered by log probabilities."""

    place: Place
    token_ids: tuple[int, ...]
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """Where do the last `num_tokens` tokens up to `place` lie? Answered by the mean of the last hidden states."""

    place: Place
    num_tokens: int


NextToken: TypeAlias = MostProbable | Draw | Probability
Want: TypeAlias = NextToken | Direction
Got: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Token ids and their natural log probabilities; of a `Direction` no ids, and the unit vector."""
