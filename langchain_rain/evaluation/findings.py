"""What a run finds, piece by piece: each on the disk before it counts, so that whatever stops a run takes none back."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from langchain_rain.concurrency import as_they_come
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.json_lines import read_object
from langchain_rain.ledger import Ledger

Found = TypeVar("Found")
Given = TypeVar("Given", bound="Piece")

Tell = Callable[[str, int, int], None]
"""Is told what is under way, how much of it is done, and how much there is."""


class Piece(Protocol):
    """A piece of work."""

    @property
    def id(self) -> str:
        """Names its row."""

    @property
    def input_hash(self) -> str:
        """Tells what it is about from anything else."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a model failed at."""

    id: str
    error: str


@dataclass(frozen=True, slots=True)
class Working:
    """How the work of a run is done.

    Attributes:
        concurrency: how much of it is under way at once.
        tell: is told of it.
        failures: what models failed at; the next run of the same tries it again.
    """

    concurrency: int
    tell: Tell
    failures: list[Failure] = field(default_factory=list)


class Findings(Generic[Found]):
    """What was found of one kind, in a ledger.

    Args:
        path: the ledger.
        settings_hash: tells what it was found by; what others have found is never mixed in.
        read: from a row, without what the ledger itself needs, to what was found: a dataclass of JSON values, or a
            function that makes one.
        working: how to find more.

    Attributes:
        found: by the id of the piece.

    Raises:
        RainConfigError: by `with`: the ledger cannot be opened, or holds what was found by other settings.
    """

    def __init__(self, path: Path, settings_hash: str, read: Callable[..., Found], working: Working) -> None:
        self.found: dict[str, Found] = {}
        self._path = path
        self._settings_hash = settings_hash
        self._read = read
        self._working = working

    def __enter__(self) -> Self:
        self._ledger = Ledger(self._path)
        try:
            self._ledger.check_settings(self._settings_hash)
            self.found = read_findings(self._path, self._read)
        except BaseException as error:
            self._ledger.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ledger.__exit__(kind, error, traceback)

    async def add(self, what: str, pieces: Sequence[Given], find: Callable[[Given], Awaitable[Found]]) -> None:
        """Finds what is not found yet; what a model fails at is noted and passed over.

        Args:
            what: in words, for who is told.
            pieces: all there is.
            find: finds it.

        Raises:
            RainConfigError: a piece was found of another input, or a row cannot be written.
        """
        still_open = [piece for piece in pieces if not self._ledger.holds(piece.id, piece.input_hash)]
        num_done = len(pieces) - len(still_open)
        async with aclosing(self._tried(still_open, find)) as all_tried:
            async for piece, found in all_tried:
                hashes = {"settings_hash": self._settings_hash, "input_hash": piece.input_hash}
                self._ledger.append({"id": piece.id, **asdict(found), **hashes})
                self.found[piece.id] = found
                num_done += 1
                self._working.tell(what, num_done, len(pieces))

    async def _tried(
        self, pieces: Iterable[Given], find: Callable[[Given], Awaitable[Found]]
    ) -> AsyncGenerator[tuple[Given, Any]]:
        """What came of each piece, as it comes."""

        async def attempt(piece: Given) -> tuple[Given, Any]:
            try:
                return piece, await find(piece)
            except EngineError as error:
                return piece, Failure(piece.id, str(error))

        async with aclosing(as_they_come(pieces, attempt, concurrency=self._working.concurrency)) as all_tried:
            async for piece, found in all_tried:
                if isinstance(found, Failure):
                    self._working.failures.append(found)
                else:
                    yield piece, found


def read_findings(path: Path, read: Callable[..., Found]) -> dict[str, Found]:
    """What stands in a ledger, by id.

    Raises:
        RainConfigError: it holds something else.
    """
    found = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            row = read_object(line, f"{path}, line {number}")
            try:
                row_id = row.pop("id")
                found[row_id] = read(**{key: value for key, value in row.items() if not key.endswith("_hash")})
            except (KeyError, TypeError) as error:
                raise RainConfigError(f"{path}, line {number}: a row of this kind is wanted: {error}.") from error
    return found
