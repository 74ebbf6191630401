"""What happens in one search and when: from what a driver sees to simulations, judgements and commits with their times.

A search has no clock, and tells of what happened with a later round. The driver's clock is read when the search comes
to a round, which it does at once after its replies are there; so what is new by then happened then. A simulation and a
commit begin where the one before them ended, the first with the search; simulations at several leaves at once share
their time. A judgement begins when it is asked for and ends with the last reply to its questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from langchain_rain.drivers import Outcome
from langchain_rain.engines.base import Cost
from langchain_rain.search.protocol import (
    AppliesTo,
    Committed,
    Event,
    Judge,
    Request,
    Round,
    Score,
    Simulated,
    Steps,
    Transcript,
    Verdict,
    observed,
)
from langchain_rain.search.state import Search

Place = TypeVar("Place")
"""Where a judgement was made: a simulation or a commit."""


@dataclass(slots=True, eq=False)
class Judgement:
    """One judgement of a text, whoever wanted it.

    Attributes:
        answer: what was judged.
        asked: its questions with their replies.
        began, ended: by the driver's clock; None until then.
        verdict: None until it is there.
    """

    answer: str
    asked: list[tuple[Request, Any]] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None
    verdict: Verdict | None = None


class Teller(Protocol[Place]):
    """Is told of an answer: when it begins, what happens, how it ends."""

    def begin(self, at: float) -> None:
        """The search begins."""

    def simulation(self, event: Simulated, began: float, ended: float) -> Place:
        """A simulation was backed up."""

    def commit(self, event: Committed, began: float, ended: float) -> Place:
        """A token set was committed."""

    def judgement(self, judgement: Judgement, within: Place | None, at: float) -> None:
        """A text was judged, or would have been, had the search not ended at that time; None: for nothing of these."""

    def end(self, end: Outcome[Any] | BaseException, cost: Cost, at: float) -> None:
        """The search has ended."""


@dataclass(frozen=True, slots=True)
class WatchedJudge:
    """A judge as it is, whose judgements are noted."""

    judge: Judge
    judgements: list[Judgement]

    @property
    def can_veto(self) -> bool:
        """Whether a verdict may be a veto."""
        return self.judge.can_veto

    @property
    def applies_to(self) -> frozenset[AppliesTo]:
        """What its criteria can judge."""
        return self.judge.applies_to

    def __call__(self, transcript: Transcript) -> Steps[Verdict]:
        """Judges a transcript."""
        judgement = Judgement(transcript.answer)
        self.judgements.append(judgement)
        judgement.verdict = yield from observed(self.judge(transcript), judgement.asked)
        return judgement.verdict

    def guidance(self, verdict: Verdict) -> str:
        """What a writer should keep to whose text was judged so."""
        return self.judge.guidance(verdict)


class Watch(Generic[Place]):
    """Watches one search, whose judge it replaces by one that notes its judgements; an `Observer`."""

    def __init__(self, search: Search, teller: Teller[Place]) -> None:
        self._search = search
        self._teller = teller
        self._judgements: list[Judgement] = []  # that were not told yet
        self._asked: dict[int, Score] = {}
        self._replied: dict[Request, float] = {}
        self._has_begun = False
        self._since = 0.0
        self._committed = ""
        self._num_known = 0  # of the events that the search has not handed over yet
        search.judge = WatchedJudge(search.judge, self._judgements)

    def on_round(self, asked: Round, new: Mapping[int, Request], at: float) -> None:
        """Tells what has happened up to this round."""
        self._begin(at)
        self._tell(asked.events, at)
        self._asked.update({number: request for number, request in new.items() if isinstance(request, Score)})

    def on_replies(self, replies: Mapping[int, Any], at: float) -> None:
        """Notes when questions were answered."""
        self._replied.update({self._asked.pop(number): at for number in replies if number in self._asked})

    def on_end(self, end: Outcome[Any] | BaseException, cost: Cost, at: float) -> None:
        """Tells the rest, and the end whatever fails before."""
        try:
            self._begin(at)
            self._tell((), at)
            while self._judgements:
                self._teller.judgement(self._judgements.pop(0), None, at)
        finally:
            self._teller.end(end, cost, at)

    def _begin(self, at: float) -> None:
        if not self._has_begun:
            self._has_begun, self._since = True, at
            self._teller.begin(at)

    def _tell(self, handed_over: Sequence[Event], at: float) -> None:
        """Tells what is new among the events that are handed over now and those that are kept for later."""
        self._time_judgements(at)
        happened = [*handed_over, *self._search.events][self._num_known :]
        self._num_known = len(self._search.events)
        since = self._since
        for event in happened:
            if isinstance(event, Simulated):
                self._tell_judgement_of(event.draft, self._teller.simulation(event, since, at), at)
            else:
                self._committed += event.token_set.text
                self._tell_judgement_of(self._committed, self._teller.commit(event, self._since, at), at)
            self._since = at
        if happened:  # what nothing came of
            for judgement in [each for each in self._judgements if each.verdict is not None]:
                self._judgements.remove(judgement)
                self._teller.judgement(judgement, None, at)

    def _time_judgements(self, at: float) -> None:
        for each in self._judgements:
            if each.began is None:
                each.began = at
            if each.ended is None and each.verdict is not None:
                each.ended = max([self._replied.get(request, at) for request, _ in each.asked], default=each.began)

    def _tell_judgement_of(self, answer: str, within: Place, at: float) -> None:
        """Tells of the judgement that something was simulated or committed for, unless that was made before."""
        made = (each for each in self._judgements if each.answer == answer and each.verdict is not None)
        judgement = next(made, None)
        if judgement is not None:
            self._judgements.remove(judgement)
            self._teller.judgement(judgement, within, at)
