"""Between text and token ids: prompts, judgements, answers as they grow. Knows a tokenizer, no model."""

import copy
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from langchain_rain.engines.conversation import REPLACEMENT, Conversation, Milestone, Reading
from langchain_rain.engines.dialogue import (
    NEXT_TURNS,
    Dialogue,
    guided,
    template_messages,
    with_system_in_first_turn,
)
from langchain_rain.engines.reading import AnswerReader, PlainReader, ToolReader
from langchain_rain.engines.wants import Place
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.protocol import Score, Tokens

NUM_ANCHOR_TOKENS = 4
"""Tokens decoded in front of those that follow them, for tokenizers that treat the first token of a text apart."""

MILESTONE = 32
"""After how many tokens an answer's text is kept, so that what follows is decoded without what stands before."""

PROBE = "probe_tool"
"""Stands for the name of a tool where a template is asked how it writes a call."""


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

    @cached_property
    def identity(self) -> str:
        """What tells it from another tokenizer in what a model is asked, and how it is read."""
        tokenizer = self._tokenizer
        response_template = getattr(tokenizer, "response_template", None)
        known = sorted(tokenizer.get_vocab().items())
        return repr((tokenizer.chat_template, response_template, sorted(self._eos_token_ids), _hash_of(repr(known))))

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations go through a template of the model's own."""
        return self._tokenizer.chat_template is not None

    def check_tools(self) -> None:
        """Checks that tools can be offered, and calls of them read.

        Raises:
            RainConfigError: the tokenizer brings no template for the one or for the other.
        """
        if not self.has_chat_template or "tools" not in str(self._tokenizer.chat_template):
            raise RainConfigError(f"{self._name} cannot call tools: the chat template of its tokenizer takes none.")
        if getattr(self._tokenizer, "response_template", None) is None:
            raise RainConfigError(
                f"{self._name} cannot call tools: its tokenizer has no `response_template`, which says how calls are "
                "read from an answer; set `tokenizer.response_template` (transformers: chat response parsing)."
            )

    def conversation(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str]) -> Conversation:
        """Encodes a prompt: text as it stands, a dialogue by the chat template, or in lines where there is none.

        Raises:
            EngineError: as `prompt_tokens` and `dialogue`.
            RainConfigError: a message holds something else than text.
        """
        if isinstance(prompt, str):
            return Conversation(self.prompt_tokens(prompt), max_tokens, tuple(stop), prompt)
        if self.has_chat_template:
            return self.dialogue(prompt, max_tokens=max_tokens, stop=stop)
        template_messages(prompt.messages)  # checks that all of it is text
        tokens = self.prompt_tokens(prompt.as_lines)
        continues_line = not prompt.beginning
        return Conversation(tokens, max_tokens, (*stop, *NEXT_TURNS), prompt, continues_line=continues_line)

    def dialogue(self, dialogue: Dialogue, *, max_tokens: int, stop: Sequence[str]) -> Conversation:
        """Encodes a conversation by the chat template.

        Raises:
            EngineError: the template does not take it, or the text is not valid Unicode.
            RainConfigError: a message holds something else than text.
        """
        turns = template_messages(dialogue.messages)
        for turn in turns:
            self._check_unicode(turn["content"])
        with self._lock:
            tokens = self._templated(turns, dialogue.tools)
            given = self._encode(dialogue.beginning, add_special_tokens=False) if dialogue.beginning else ()
            beginning = self._forced_beginning(dialogue)
            forced = self._tokenizer(beginning, add_special_tokens=False).input_ids if beginning else []
        tokens = (*tokens, *given, *forced)
        return Conversation(tokens, max_tokens, tuple(stop), dialogue, tools=dialogue.tools, beginning=beginning)

    def guided(self, conversation: Conversation, guidance: str) -> Place:
        """The end of a conversation's prompt with `guidance` before it; in the system message of a dialogue."""
        if guidance not in conversation.guided:
            prompt = conversation.prompt
            if isinstance(prompt, str):
                tokens = self.prompt_tokens(f"{guidance}\n\n{prompt}")
            else:
                with_guidance = replace(prompt, messages=tuple(guided(prompt.messages, guidance)))
                tokens = self.conversation(with_guidance, max_tokens=0, stop=()).prompt_tokens
            conversation.guided[guidance] = Place(None, tokens)
        return conversation.guided[guidance]

    def reader(self, conversation: Conversation) -> AnswerReader:
        """Reads the answer of a conversation."""
        if not conversation.tools:
            return PlainReader(skips_space=conversation.continues_line)
        with self._lock:
            prompt = self._tokenizer.decode(conversation.prompt_tokens).removesuffix(conversation.beginning)
            parser = self._tokenizer.get_response_parser(prefix=prompt, tools=list(conversation.tools))
        names = frozenset(str(tool["function"]["name"]) for tool in conversation.tools)
        return ToolReader(parser, names, salt=prompt, beginning=conversation.beginning)

    def _templated(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Tokens:
        from jinja2 import TemplateError

        def apply(turns: Sequence[Mapping[str, Any]]) -> Tokens:
            return tuple(
                self._tokenizer.apply_chat_template(
                    list(turns),
                    tools=list(tools) or None,
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
                )
            )

        try:
            return apply(turns)
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            if any(turn["role"] == "system" for turn in turns):
                return self._templated(with_system_in_first_turn(turns), tools)  # some templates know no such role
            raise EngineError(
                f"The chat template of {self._name} does not take this conversation of "
                f"{', '.join(turn['role'] for turn in turns)}: {error}",
                engine=self._name,
            ) from error

    def _forced_beginning(self, dialogue: Dialogue) -> str:
        """What an answer begins with that must call a tool: what the template writes before the name of one."""
        if dialogue.tool_choice is None:
            return ""
        call = {"type": "function", "id": "call_0", "function": {"name": PROBE, "arguments": {}}}
        asking, calling = (
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": "?"}, *more],
                tools=list(dialogue.tools),
                add_generation_prompt=not more,
                tokenize=False,
            )
            for more in ([], [{"role": "assistant", "content": "", "tool_calls": [call]}])
        )
        if not calling.startswith(asking) or PROBE not in calling[len(asking) :]:
            raise EngineError(
                f"The chat template of {self._name} does not show how an answer begins that calls a tool, so "
                f"tool_choice={dialogue.tool_choice!r} cannot be kept to.",
                engine=self._name,
            )
        beginning = str(calling[len(asking) :]).partition(PROBE)[0]
        return beginning if dialogue.tool_choice == "any" else beginning + dialogue.tool_choice

    def question_tokens(self, question: str, answer_prefix: str, wrapper: tuple[str, str] | None = None) -> Tokens:
        """Encodes a question and the beginning of its answer; as a user's turn where there is a chat template.

        What stands in `wrapper` takes the place of the template; there alone special tokens are what they spell.
        """
        if self._tokenizer.chat_template is None and wrapper is None:
            return self.prompt_tokens(question + answer_prefix)
        self._check_unicode(question)
        with self._lock:
            if wrapper is not None:
                before, after = (self._tokenizer(text, add_special_tokens=False).input_ids for text in wrapper)
                turn = (*before, *self._encode(question, add_special_tokens=False), *after)
            else:
                messages = [{"role": "user", "content": question}]
                turn = self._tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
                )
            return (*turn, *self._encode(answer_prefix, add_special_tokens=False))

    def score_tokens(self, request: Score) -> Tokens:
        """What a `Score` puts before the model."""
        return self.question_tokens(request.question, request.answer_prefix, request.wrapper)

    def options_token_ids(self, options: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens that begin each option, and no other one.

        Raises:
            EngineError: two options begin with the same token.
        """
        ids = [self.option_token_ids(option) for option in options]
        if len(set().union(*ids)) < sum(map(len, ids)):
            raise EngineError(
                f"The tokenizer of {self._name} begins two of the options {', '.join(map(repr, options))} with the "
                "same token; a judge needs to tell them apart by the first.",
                engine=self._name,
                request="Score",
            )
        return ids

    def option_token_ids(self, option: str) -> tuple[int, ...]:
        """All tokens that spell an option, with and without a space before it, and with the bracket after it.

        And those that it begins with where several tokens spell it.
        """
        if option not in self._options:
            ids = {index for index, text in enumerate(self._vocabulary) if _spells(text, option)}
            with self._lock:
                spelled = [self._encode(text, add_special_tokens=False) for text in (option, f" {option}")]
            for tokens in spelled:
                ids |= set([token for token in tokens if self._vocabulary[token].strip()][:1])
            if not ids:
                raise EngineError(
                    f"{self._name} has no token for the option {option!r}; a judge needs one for each option.",
                    engine=self._name,
                    request="Score",
                )
            self._options[option] = tuple(sorted(ids))
        return self._options[option]

    def tokens_of(self, text: str) -> Tokens:
        """The one token that spells a text, else the tokens that it is encoded by.

        Raises:
            LookupError: there are none.
        """
        if text in self._token_of_text:
            return (self._token_of_text[text],)
        tokens = self.encoded(text)
        if not tokens:
            raise LookupError(text)
        return tokens

    def encoded(self, text: str) -> Tokens:
        """The tokens of a text that goes on another."""
        with self._lock:
            return self._encode(text, add_special_tokens=False)

    @cached_property
    def _token_of_text(self) -> dict[str, int]:
        """The first token that spells each text; a token that begins a word in SentencePiece's way has a space."""
        pieces = self._tokenizer.convert_ids_to_tokens(list(range(len(self._vocabulary))))
        token_of: dict[str, int] = {}
        for token, (text, piece) in enumerate(zip(self._vocabulary, pieces, strict=True)):
            has_lost_space = str(piece).startswith("\u2581") and not text.startswith(" ")
            token_of.setdefault(f" {text}" if has_lost_space else text, token)
        token_of.pop("", None)
        return token_of

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a text."""
        return self._eos_token_ids

    def learn_end(self, token: int) -> bool:
        """Notes that a special token ends texts too: a model may have more such tokens than is known of it.

        Returns:
            Whether it is one; what is no special token is text.
        """
        if token in self._special_ids:
            self._eos_token_ids |= {token}
        return token in self._eos_token_ids

    def spelled_out(self, tokens: Sequence[int]) -> tuple[str, list[str]]:
        """Tokens as text, special ones included, and each as the tokenizer writes it."""
        return self._decode(tokens, frozenset()), list(self._tokenizer.convert_ids_to_tokens(list(tokens)))

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
        size = len(self._tokenizer)
        return ["" if index in self._special_ids else self._tokenizer.decode([index]) for index in range(size)]

    def read(self, conversation: Conversation, tokens: Tokens) -> Reading:
        """What the first `tokens` of an answer say."""
        reading = conversation.readings.get(tokens)
        return reading if reading is not None else conversation.remember(tokens, self._read(conversation, tokens))

    def last_text(self, conversation: Conversation, tokens: Tokens, num_tokens: int) -> str:
        """What the last `num_tokens` tokens of an answer say.

        A character that is not complete before them is theirs, as in the text of a token set.
        """
        before = self.read(conversation, tokens[:-num_tokens]).text
        return self.read(conversation, tokens).decoded[len(before) :]

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
        """What `tokens` say after the prompt; only those since the last milestone are decoded again."""
        last = (len(tokens) - MILESTONE // 2) // MILESTONE * MILESTONE
        ends = (end for end in range(last, 0, -MILESTONE) if self._milestone(conversation, tokens[:end]).is_whole)
        end = next(ends, 0)
        start = self._milestone(conversation, tokens[:end])
        decoded = self._decode((*start.anchor, *tokens[end:]), self._hidden_in(conversation))
        return start.text + decoded[start.anchor_length :]

    def _milestone(self, conversation: Conversation, tokens: Tokens) -> Milestone:
        known = conversation.milestones.get(tokens)
        if known is None:
            anchor = (*conversation.prompt_tokens[-NUM_ANCHOR_TOKENS:], *tokens)[-NUM_ANCHOR_TOKENS:]
            length = len(self._decode(anchor, self._hidden_in(conversation)))
            text = self._decode_after(conversation, tokens) if tokens else ""
            known = conversation.milestones[tokens] = Milestone(text, anchor, length)
        return known

    def _hidden_in(self, conversation: Conversation) -> frozenset[int]:
        return self._hidden_ids if conversation.tools else self._special_ids

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self._tokenizer.added_tokens_decoder.items()
        return frozenset(self._tokenizer.all_special_ids) | {index for index, token in added if token.special}

    @cached_property
    def _hidden_ids(self) -> frozenset[int]:
        """The special tokens that are not shown where calls are read: some mark a call."""
        markup = json.dumps(self._tokenizer.response_template.get("fields"), ensure_ascii=False)
        texts = self._tokenizer.convert_ids_to_tokens
        return frozenset(index for index in self._special_ids if texts(index) not in markup)

    def _decode(self, tokens: Sequence[int], hidden: frozenset[int]) -> str:
        shown = [token for token in tokens if token not in hidden]
        text = self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _hash_of(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


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
