"""From what happens in a search to the chunks of a stream: only what may be released, and nothing taken back."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from langchain_core.outputs import Generation, GenerationChunk

from langchain_rain import drivers
from langchain_rain.drivers import Job, Outcome
from langchain_rain.errors import EngineError
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Committed, Event

Happening = Event | Outcome[SearchResult] | EngineError
"""What a stream is made of: events, then the outcome or the error of the engine."""


@dataclass(slots=True)
class Releasing:
    """Turns what happens in a search into chunks: committed token sets, held until they may be released.

    Attributes:
        finish: makes the whole generation when the search has ended.
        holds_back: whether committed text is held until it has been judged well.
    """

    finish: Callable[[Outcome[SearchResult] | EngineError], Generation]
    holds_back: bool
    _released: str = ""
    _held: str = ""

    def chunks(self, happening: Happening) -> Iterator[GenerationChunk]:
        """The chunks that may be given out now."""
        if isinstance(happening, Outcome | EngineError):
            yield self._last_chunk(happening)
        elif isinstance(happening, Committed):
            self._held += happening.token_set.text
            if self._held and (happening.is_satisfied or not self.holds_back):
                self._released += self._held
                yield GenerationChunk(text=self._held)
                self._held = ""

    def _last_chunk(self, outcome: Outcome[SearchResult] | EngineError) -> GenerationChunk:
        """What is still to be released; together with what went before it is what `invoke` returns."""
        whole = self.finish(outcome)
        assert whole.text.startswith(self._released)
        return GenerationChunk(text=whole.text[len(self._released) :], generation_info=whole.generation_info)


def happenings(job: Job[SearchResult]) -> Generator[Happening]:
    """What happens in a search; the error last if its engine fails."""
    try:
        yield from drivers.stream(job)
    except EngineError as error:
        yield error


async def ahappenings(job: Job[SearchResult]) -> AsyncGenerator[Happening]:
    """The same without blocking the event loop."""
    events = drivers.astream(job)
    assert isinstance(events, AsyncGenerator)
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except EngineError as error:
            yield error
