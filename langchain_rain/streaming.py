"""From what happens in a search to a stream: only what may be released, and nothing taken back."""

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import dataclass

from langchain_rain import drivers
from langchain_rain.drivers import Job, Outcome
from langchain_rain.errors import EngineError
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Committed, Event

Happening = Event | Outcome[SearchResult] | EngineError
"""What a stream is made of: events, then the outcome or the error of the engine."""


@dataclass(slots=True)
class Releasing:
    """Decides which committed text may be given out, and when.

    Attributes:
        holds_back: whether committed text is held until it has been judged well.
        released: what has been given out.
    """

    holds_back: bool
    released: str = ""
    _held: str = ""

    def take(self, event: Event) -> str:
        """The text that may be given out now that this has happened."""
        if not isinstance(event, Committed):
            return ""
        self._held += event.token_set.text
        if self.holds_back and not event.is_satisfied:
            return ""
        text, self._held = self._held, ""
        self.released += text
        return text


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
