"""What of a stream is held back: texts or chunks of a message, given out from the front."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.base import merge_content

from langchain_rain.engines.dialogue import said_in_full
from langchain_rain.errors import RainConfigError
from langchain_rain.passages import Record, replacement

Content: TypeAlias = str | list[str | dict[Any, Any]]
Chunk: TypeAlias = str | AIMessageChunk

TEXT_OF_BLOCKS = {"text": "text", "thinking": "thinking", "reasoning": "reasoning"}
"""Content blocks that are given out as they come, and where they hold their text; others wait for the end."""

TOLD_BY_EACH_CHUNK = ("model_provider", "output_version")
"""What a reader of one chunk needs to know in order to read its blocks; equal ones add up to themselves."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the content of a chunk.

    Attributes:
        content: as it was.
        text: what it shows.
        can_be_cut: whether two parts of it would add up to it again.
        chunk: what it is from; None for a text.
    """

    content: Content
    text: str
    can_be_cut: bool
    chunk: AIMessageChunk | None = None

    def cut(self, at: int) -> tuple["Piece", "Piece"]:
        """Its text up to a position, and all the rest."""
        first, second = self.text[:at], self.text[at:]
        if isinstance(self.content, str):
            return Piece(first, first, True, self.chunk), Piece(second, second, True, self.chunk)
        (block,) = self.content
        assert isinstance(block, dict)
        kept = {name: block[name] for name in ("type", "index", "id") if name in block}
        return (
            Piece([{**kept, "text": first}], first, True, self.chunk),
            Piece([{**block, "text": second}], second, True, self.chunk),
        )


@dataclass(slots=True)
class Held:
    """A text or a message of which something may have been given out.

    What chunks hold beside their content (calls of tools, usage, metadata) is held to the end, and so is all content
    from the first block on that is neither text nor thought. What is given out adds up to what came in.

    Attributes:
        text: what the content shows that is held and may be given out before the end.
        shown: what has been given out.
        num_segments: in how many times.
    """

    text: str = ""
    shown: str = ""
    num_segments: int = 0
    _chunks: list[Chunk] = field(default_factory=list)
    _pieces: list[Piece] = field(default_factory=list)
    _given: list[Content] = field(default_factory=list)
    _is_closed: bool = False

    def add(self, chunk: Any) -> None:
        """Takes a chunk.

        Raises:
            RainConfigError: it is of another kind than those before it.
        """
        kind = type(self._chunks[0]) if self._chunks else type(chunk)
        if not isinstance(chunk, str | AIMessageChunk) or isinstance(chunk, str) != issubclass(kind, str):
            raise RainConfigError(f"input: a stream of {kind.__name__} must go on so, given {type(chunk).__name__}.")
        self._chunks.append(chunk)
        for piece, waits_for_end in _pieces_of(chunk):
            self._is_closed |= waits_for_end
            self._pieces.append(piece)
            self.text += "" if self._is_closed else piece.text

    @property
    def whole(self) -> Chunk:
        """All that came in, to be judged."""
        if isinstance(self._chunks[0], str):
            return "".join(map(str, self._chunks))
        first, *others = self._messages
        # Of a message that begins with an empty list LangChain's sum keeps no text; who reads the stream sees it.
        content = self._content_with(self._pieces)
        return add_ai_message_chunks(first, *others).model_copy(update={"content": content}) if others else first

    def place_before(self, position: int) -> int:
        """The last position in `text`, up to this one, at which it can be cut."""
        start = 0
        for piece in self._pieces:
            end = start + len(piece.text)
            if start <= position < end:
                return position if piece.can_be_cut else start
            start = end
        return position

    def beginning(self, position: int) -> str:
        """What a judge reads of all that would have been given out, if it were cut there."""
        taken, _ = self._parted(position)
        content = self._content_with(taken)
        return content if isinstance(content, str) else said_in_full(AIMessage(content))

    def give(self, position: int) -> list[Chunk]:
        """Gives out what is before a position."""
        taken, self._pieces = self._parted(position)
        self._given += [piece.content for piece in taken]
        self.shown += self.text[:position]
        self.text = self.text[position:]
        self.num_segments += 1
        return _chunks_of(taken)

    def give_rest(self, record: Record | None) -> list[Chunk]:
        """Gives out all that is left; with a record, a message tells that it was let pass."""
        if len(self._chunks) == 1 and not self._given and record is None:
            return self._chunks
        chunks = _chunks_of(self._pieces)
        messages = [
            each.model_copy(update={"content": ""}) for each in self._chunks if isinstance(each, AIMessageChunk)
        ]
        if not messages:
            return [chunk for chunk in chunks if chunk]
        first, *others = messages
        last = add_ai_message_chunks(first, *others)
        match chunks:
            case [AIMessageChunk(content=content)]:
                chunks, last = [], last.model_copy(update={"content": content})
        if record is not None:
            last = last.model_copy(update={"response_metadata": {**last.response_metadata, "rain": record}})
        return [*chunks, last]

    def refusal(self, text: str, record: Record) -> Chunk:
        """What follows what has been given out, in place of the rest."""
        whole = self.whole
        if isinstance(whole, str):
            return text
        last = replacement(whole, text, record, keeps_speaker=False)
        assert isinstance(last, AIMessageChunk)
        has_blocks = any(isinstance(content, list) for content in self._given)
        return last.model_copy(update={"content": [{"type": "text", "text": text}]}) if has_blocks else last

    def _content_with(self, pieces: Sequence[Piece]) -> Content:
        return merge_content("", *self._given, *(piece.content for piece in pieces))

    @property
    def _messages(self) -> list[AIMessageChunk]:
        return [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]

    def _parted(self, position: int) -> tuple[list[Piece], list[Piece]]:
        """The pieces before a position in `text`, and those after it."""
        start = 0
        for index, piece in enumerate(self._pieces):
            end = start + len(piece.text)
            if position < end:
                if position == start:
                    return self._pieces[:index], self._pieces[index:]
                first, second = piece.cut(position - start)
                return [*self._pieces[:index], first], [second, *self._pieces[index + 1 :]]
            start = end
        return self._pieces, []


def _pieces_of(chunk: Chunk) -> list[tuple[Piece, bool]]:
    """The pieces of a chunk, and whether they must wait for the end."""
    if isinstance(chunk, str):
        return [(Piece(chunk, chunk, True), False)]
    if isinstance(chunk.content, str):
        return [(Piece(chunk.content, chunk.content, True, chunk), False)]
    return [_piece_of(block, chunk) for block in chunk.content] or [(Piece([], "", False, chunk), False)]


def _piece_of(block: str | dict[Any, Any], chunk: AIMessageChunk) -> tuple[Piece, bool]:
    if isinstance(block, str):
        return Piece([block], block, False, chunk), False
    kind = block.get("type")
    text = block.get(TEXT_OF_BLOCKS.get(str(kind), ""), "")
    index = block.get("index")
    adds_up = kind == "text" and (isinstance(index, int) or (isinstance(index, str) and index.startswith("lc_")))
    return Piece([block], str(text or ""), adds_up, chunk), kind not in TEXT_OF_BLOCKS


def _chunks_of(pieces: Sequence[Piece]) -> list[Chunk]:
    """Pieces as they are given out: texts that follow each other as one."""
    chunks: list[Chunk] = []
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece.content, str)):
        run = list(group)
        chunks += (
            [_chunk_of(run, "".join(piece.text for piece in run))]
            if is_text
            else [_chunk_of([piece], piece.content) for piece in run]
        )
    return chunks


def _chunk_of(pieces: Sequence[Piece], content: Content) -> Chunk:
    origins = [piece.chunk for piece in pieces if piece.chunk is not None]
    if not origins:
        assert isinstance(content, str)
        return content
    told = {name: each for name, each in origins[0].response_metadata.items() if name in TOLD_BY_EACH_CHUNK}
    identity = next((each.id for each in origins if each.id), None)
    return AIMessageChunk(content=content, id=identity, response_metadata=told)
