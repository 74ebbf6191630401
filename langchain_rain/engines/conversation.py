"""What an engine keeps of an open context: its prompt as tokens, and what has been read of its answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.wants import Place
from langchain_rain.search.protocol import FinishReason, Tokens

MAX_READ_TOKENS = 2**20
"""How many tokens all readings that a conversation remembers may have together: some 16 MB. There is one for each token
of an answer, so that of an answer of 4,000 tokens alone eight times as many would be kept."""

REPLACEMENT = "\ufffd"
"""What an incomplete character decodes to."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer so far, as text.

    Attributes:
        decoded: all that its tokens say, up to a stop string.
        text: the same without what is held back: an incomplete character, or the possible beginning of a stop string.
        finish_reason: why it ends; None if it goes on.
    """

    decoded: str
    text: str
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class Milestone:
    """A beginning of an answer from which further tokens are decoded without what stands before.

    Attributes:
        text: what its tokens say.
        anchor: the last of them and, where they are few, of the prompt: some tokenizers treat the first token of a
            text apart.
        anchor_length: of these as text.
    """

    text: str
    anchor: Tokens
    anchor_length: int

    @property
    def is_whole(self) -> bool:
        """Whether it does not end inside a character."""
        return not self.text.endswith(REPLACEMENT)


@dataclass(slots=True, eq=False)
class Conversation:
    """What an engine keeps of an open context."""

    prompt_tokens: Tokens
    max_tokens: int
    stop: tuple[str, ...]
    prompt: str | Dialogue = ""  # before it became tokens
    tools: tuple[Mapping[str, Any], ...] = ()
    beginning: str = ""  # of the answer, where the prompt's last tokens force one
    continues_line: bool = False  # the prompt ends with `Assistant:`
    readings: dict[Tokens, Reading] = field(default_factory=dict)
    milestones: dict[Tokens, Milestone] = field(default_factory=dict)
    place: Place = field(init=False)  # the end of the prompt
    guided: dict[str, Place] = field(default_factory=dict)  # that of the prompt with some guidance before it

    _num_read_tokens: int = 0

    def __post_init__(self) -> None:
        self.place = Place(None, self.prompt_tokens)

    def remember(self, tokens: Tokens, reading: Reading) -> Reading:
        """Keeps what `tokens` say; forgets what was kept first where it becomes too much. Returns `reading`."""
        self.readings[tokens] = reading
        self._num_read_tokens += len(tokens)
        while self._num_read_tokens > MAX_READ_TOKENS and len(self.readings) > 1:
            oldest = next(iter(self.readings))
            del self.readings[oldest]
            self._num_read_tokens -= len(oldest)
        return reading
