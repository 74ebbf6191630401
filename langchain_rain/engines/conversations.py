"""The conversations that an engine with tokens holds open, and the work that a request in one of them is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_rain.engines.base import ModelText
from langchain_rain.engines.conversation import Conversation
from langchain_rain.engines.dialogue import Dialogue
from langchain_rain.engines.reading import AnswerReader
from langchain_rain.engines.text import TextCodec
from langchain_rain.engines.wants import Place
from langchain_rain.engines.work import EmbedWork, ExpandWork, RolloutWork, ScoreWork, Work
from langchain_rain.errors import EngineError
from langchain_rain.search.protocol import Context, Embed, Expand, Request, Rollout, Score, Tokens, TokenSet


class Conversations:
    """Opens and closes conversations with one model.

    Args:
        codec: its tokenizer.
        max_context: how many tokens a text may have.
        name: names the engine in errors and contexts.
    """

    def __init__(self, codec: TextCodec, *, max_context: int, name: str) -> None:
        self.codec = codec
        self._max_context = max_context
        self._name = name
        self._open: dict[Context, Conversation] = {}

    def open(self, prompt: str | Dialogue, *, max_tokens: int, stop: Sequence[str]) -> Context:
        """Begins a conversation.

        Raises:
            EngineError: the prompt is empty and the model cannot begin a text, or prompt and answer exceed its context.
        """
        conversation = self.codec.conversation(prompt, max_tokens=max_tokens, stop=stop)
        num_tokens = len(conversation.prompt_tokens)
        if num_tokens + max_tokens > self._max_context:
            raise EngineError(
                f"A prompt of {num_tokens} tokens and max_tokens={max_tokens} exceed the context of {self._name}, "
                f"{self._max_context} tokens. Shorten the prompt or lower max_tokens.",
                engine=self._name,
            )
        context = Context(self._name, num_prompt_tokens=num_tokens)
        self._open[context] = conversation
        return context

    def close(self, context: Context) -> None:
        """Forgets a conversation."""
        self._open.pop(context, None)

    def reader(self, context: Context) -> AnswerReader:
        """Reads the answer of an open conversation."""
        return self.codec.reader(self._open[context])

    def of(self, request: Request) -> Conversation:
        """The conversation of a request.

        Raises:
            EngineError: it is closed, or of another engine.
        """
        if request.context not in self._open:
            raise EngineError(f"{request.context!r} is closed, or not of {self._name}.", engine=self._name)
        return self._open[request.context]

    def work(self, request: Request) -> Work:
        """What there is to do for a request.

        Raises:
            EngineError: its conversation is closed, or a judgement exceeds the context.
        """
        conversation = self.of(request)
        if isinstance(request, Expand):
            return ExpandWork(request, conversation, self.codec)
        if isinstance(request, Rollout):
            return RolloutWork(request, conversation, self.codec, self.guided_place(request, conversation))
        if isinstance(request, Embed):
            return EmbedWork(request, conversation)
        return self._score_work(request)

    def guided_place(self, request: Rollout, conversation: Conversation) -> Place | None:
        """The end of the prompt with guidance before it, if there is any, and both and the answer fit into a text."""
        if not request.guidance:
            return None
        guided = self.codec.guided(conversation, request.guidance)
        return guided if guided.num_tokens + conversation.max_tokens <= self._max_context else None

    def feeding(self, context: Context, *, has_encoder: bool) -> "Feeding":
        """See `base.ReadsTexts`; whether an encoder answers `Embed` in place of the model."""
        return Feeding(self, self._open[context], has_encoder)

    def _score_work(self, request: Score) -> ScoreWork:
        tokens = self.codec.score_tokens(request)
        if len(tokens) >= self._max_context:
            raise EngineError(
                f"A judgement of {len(tokens)} tokens exceeds the context of {self._name}, {self._max_context} tokens. "
                "Shorten the rubric's examples or the prompt, or give a judge with a longer context.",
                engine=self._name,
                request="Score",
            )
        return ScoreWork(request, tokens, self.codec.options_token_ids(request.options))


@dataclass(frozen=True, slots=True)
class Feeding:
    """See `base.Feeding`; of one conversation, be it open or closed by now."""

    conversations: Conversations
    conversation: Conversation
    has_encoder: bool

    def texts(self, request: Request, reply: Any) -> list[ModelText]:
        """See `base.Feeding`."""
        if isinstance(request, Score):
            return [ModelText(self.conversations.codec.score_tokens(request), 1)]
        start = (*self.conversation.prompt_tokens, *request.prefix)
        if isinstance(request, Embed):
            return [] if self.has_encoder else [ModelText(start, 0)]
        if isinstance(request, Expand):
            return [ModelText(start, 1), *(_written(start, each) for each in reply)]
        if not reply.tokens:
            return []
        guided = self.conversations.guided_place(request, self.conversation)
        starts = [start] if guided is None else [start, (*guided.sequence, *request.prefix)]
        return [_written(each, reply) for each in starts]


def _written(start: Tokens, written: TokenSet) -> ModelText:
    """What goes through a model that writes this behind `start`."""
    return ModelText((*start, *written.tokens[:-1]), len(written.tokens))
