"""Between text and token ids: prompts, judgements, answers as they grow. Knows a tokenizer, no model."""

import copy
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import FinishReason, Tokens

NUM_ANCHOR_TOKENS = 4
"""Tokens of the prompt decoded in front of an answer, for tokenizers that treat the first token of a text apart."""

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


@dataclass(slots=True, eq=False)
class Conversation:
    """What an engine keeps of an open context."""

    prompt_tokens: Tokens
    max_tokens: int
    stop: tuple[str, ...]
    readings: dict[Tokens, Reading] = field(default_factory=dict)
    anchor_length: int | None = None  # of the last tokens of the prompt as text


class TextCodec:
    """Encodes and decodes with a Hugging Face tokenizer.

    Text that comes from outside never becomes a special token, whatever it spells.

    Args:
        tokenizer: a `PreTrainedTokenizerBase`; it is copied.
        eos_token_ids: the tokens that end a text.
        name: names the engine in errors.
    """

    def __init__(self, tokenizer: Any, *, eos_token_ids: Iterable[int], name: str) -> None:
        # Encoding switches a tokenizer's handling of special tokens, and others may be using theirs meanwhile.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._eos_token_ids = frozenset(eos_token_ids)
        self._name = name
        self._lock = threading.Lock()
        self._options: dict[str, tuple[int, ...]] = {}

    def prompt_tokens(self, prompt: str) -> Tokens:
        """Encodes a prompt, with the token that begins texts if the model has one.

        Raises:
            EngineError: nothing would be left to continue from, or the text is not valid Unicode.
        """
        with self._lock:
            tokens = self._encode(prompt)
        if not tokens:
            raise EngineError(
                f"{self._name} cannot continue the empty prompt {prompt!r}: its tokenizer has no beginning-of-sequence "
                "token. Give at least one character.",
                engine=self._name,
            )
        return tokens

    def question_tokens(self, question: str, answer_prefix: str) -> Tokens:
        """Encodes a question and the beginning of its answer; as a user's turn where there is a chat template."""
        if self._tokenizer.chat_template is None:
            return self.prompt_tokens(question + answer_prefix)
        self._check_unicode(question)
        with self._lock:
            messages = [{"role": "user", "content": question}]
            turn = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
            )
            return (*turn, *self._encode(answer_prefix, add_special_tokens=False))

    def option_token_ids(self, option: str) -> tuple[int, ...]:
        """All tokens that spell an option: with and without a space before it, and with the bracket after it.

        Raises:
            EngineError: no single token does.
        """
        if option not in self._options:
            ids = [index for index, text in enumerate(self._vocabulary) if _spells(text, option)]
            if not ids:
                raise EngineError(
                    f"{self._name} has no single token for the option {option!r}; a judge needs one for each option.",
                    engine=self._name,
                    request="Score",
                )
            self._options[option] = tuple(ids)
        return self._options[option]

    def _encode(self, text: str, *, add_special_tokens: bool = True) -> Tokens:
        self._check_unicode(text)
        return tuple(self._tokenizer(text, add_special_tokens=add_special_tokens, split_special_tokens=True).input_ids)

    def _check_unicode(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EngineError(
                f"{self._name} cannot read a text with {text[error.start]!r} at index {error.start}, which is half of "
                "a character. Decode the text properly, or drop it.",
                engine=self._name,
            ) from error

    @cached_property
    def _vocabulary(self) -> list[str]:
        special = set(self._tokenizer.all_special_ids)
        size = len(self._tokenizer)
        return ["" if index in special else self._tokenizer.decode([index]) for index in range(size)]

    def read(self, conversation: Conversation, tokens: Tokens) -> Reading:
        """What the first `tokens` of an answer say."""
        reading = conversation.readings.get(tokens)
        if reading is None:
            reading = conversation.readings[tokens] = self._read(conversation, tokens)
        return reading

    def _read(self, conversation: Conversation, tokens: Tokens) -> Reading:
        is_eos = bool(tokens) and tokens[-1] in self._eos_token_ids
        decoded = self._decode_after(conversation, tokens[:-1] if is_eos else tokens)
        cut = min((at for at in map(decoded.find, conversation.stop) if at >= 0), default=None)
        if cut is not None:
            return Reading(decoded[:cut], decoded[:cut], "stop")
        if is_eos:
            return Reading(decoded, decoded, "eos")
        if len(tokens) >= conversation.max_tokens:
            return Reading(decoded, decoded, "length")
        return Reading(decoded, _without_undecided(decoded, conversation.stop), None)

    def _decode_after(self, conversation: Conversation, tokens: Tokens) -> str:
        anchor = conversation.prompt_tokens[-NUM_ANCHOR_TOKENS:]
        if conversation.anchor_length is None:
            conversation.anchor_length = len(self._decode(anchor))
        return self._decode(anchor + tokens)[conversation.anchor_length :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _spells(token_text: str, option: str) -> bool:
    stripped = token_text.strip()
    return stripped in (option, f"{option})")


def _without_undecided(text: str, stop: Sequence[str]) -> str:
    """`text` without an incomplete character and without an end that may begin a stop string."""
    text = text.rstrip(REPLACEMENT)
    longest = max((len(each) for each in stop), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(each.startswith(text[-length:]) for each in stop if len(each) > length):
            return text[:-length]
    return text
