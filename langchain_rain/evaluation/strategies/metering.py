"""The token positions of one answer, counted as if nobody else used the engine.

What an engine tells of its cost depends on what it has computed before, and for whom: a text that others have begun
alike is partly there, a position that serves two answers counts for one of them. A budget cannot be kept by that and
bring the same answer whenever it is asked for. So each text that the answer puts before a model is noted, and counted
as by an engine that keeps all it has computed, and has computed nothing before. A position that is read counts once
for all texts that begin alike up to it; one at which it is asked what follows, once for all that ask side by side.
What was asked ahead and given up, or drawn and dropped by the engine, does not count.

Of models that are called with whole texts, and of scripted ones, the cost counts as they tell it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from langchain_rain.engines.base import Cost, Engine, Feeding, ModelText, ReadsTexts
from langchain_rain.errors import BudgetExceededError
from langchain_rain.evaluation.strategies.base import Setting
from langchain_rain.search.protocol import Context, Event, Request, Round, Steps

T = TypeVar("T")

Trie: TypeAlias = dict[int, Any]
"""Tokens, each with those that follow it."""

Seen: TypeAlias = list[tuple[Request, Any]]
"""Requests with their replies."""


@dataclass(slots=True, eq=False)
class Meter:
    """Counts the positions of one answer.

    Attributes:
        setting: who writes and judges.
        positions: so far.
    """

    setting: Setting
    positions: int = 0
    _tries: dict[int, Trie] = field(default_factory=dict)
    _computed: set[int] = field(default_factory=set)  # of the round that is counted, by the ids of their `Trie`s
    _feedings: dict[Context, tuple[int, Feeding]] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether it knows of each request what goes through the model; else only of all of them when they are done."""
        return isinstance(self.setting.writer, ReadsTexts) and isinstance(self.setting.judge, ReadsTexts)

    def watch(self, contexts: Mapping[Context, Engine]) -> None:
        """Takes note of open conversations, so that what is asked in them can be counted."""
        for context, engine in contexts.items():
            if isinstance(engine, ReadsTexts):
                self._feedings[context] = (id(engine), engine.feeding(context))

    def take(self, seen: Iterable[tuple[Request, Any]], *, side_by_side: bool = False) -> None:
        """Counts requests with their replies; whether they were asked side by side with those before."""
        if not side_by_side:
            self._computed.clear()
        for request, reply in seen:
            key, feeding = self._feedings.get(request.context, (0, None))
            for text in feeding.texts(request, reply) if feeding is not None else ():
                self._count(self._tries.setdefault(key, {}), text)

    def add(self, cost: Cost) -> None:
        """Counts what a job has cost of which requests tell nothing."""
        writer_tells, judge_tells = (isinstance(each, ReadsTexts) for each in (self.setting.writer, self.setting.judge))
        if not writer_tells:
            self.positions += cost.token_positions - (cost.judging_positions if judge_tells else 0)
        elif not judge_tells:  # of a chat model that judges, what it reads is no judging position
            self.positions += cost.judging_positions + cost.input_positions

    def _count(self, trie: Trie, text: ModelText) -> None:
        num_read = len(text.tokens) - text.num_asked
        for number, token in enumerate(text.tokens):
            following = trie.get(token)
            is_new = following is None
            if following is None:
                following = trie[token] = {}
            if is_new or (number >= num_read and id(following) not in self._computed):
                self._computed.add(id(following))
                self.positions += 1
            trie = following


def metered(
    part: Steps[T], meter: Meter, consider: Callable[[], None], events: list[Event], *, max_positions: int | None = None
) -> Steps[T]:
    """The same search; what it asks is counted, what happens appended to `events`.

    Replies that end past `max_positions` do not reach it: it is told that its budget is spent. Before each that does,
    `consider` is called.
    """
    resume: Any = part.send
    given: Any = None
    try:
        while True:
            try:
                asked: Round = resume(given)
            except StopIteration as stop:
                result: T = stop.value
                return result
            events += asked.events
            try:
                given = yield asked
            except Exception as error:  # noqa: BLE001 - whatever the driver throws is for the search
                resume, given = part.throw, error
                continue
            meter.take(zip(asked.requests, given, strict=False))
            if max_positions is None or meter.positions <= max_positions:
                consider()
                resume = part.send
            else:
                resume = part.throw
                given = BudgetExceededError(f"max_positions={max_positions} is spent: {meter.positions} positions")
    finally:
        part.close()
