"""What is judged of an input and when, and what of it is given out: rules that know no model, thread or event loop.

A gating is a generator. It yields steps and is resumed with what they bring:

    More   ->  a chunk, or END        the next piece of the input
    Ask    ->  Judged | the error     what the judge thinks of a text
    Stop   ->  None                   nothing more is taken; whoever brings the input may stop
    Tell   ->  None                   something happened that traces may know; it quotes nothing of the input
    Give   ->  None                   something is given out

Of a stream the whole text so far is judged at the end of each segment, as a beginning, and the segment is given out if
that satisfies; at the end it is judged as finished before the last segment is given out. After a judgement that does
not satisfy nothing more is taken, and the policy says what follows.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from langchain_core.messages import AIMessageChunk, BaseMessageChunk

from langchain_rain.budget import Budget
from langchain_rain.engines.base import Cost
from langchain_rain.errors import BudgetExceededError, EngineError, RainConfigError, UnsatisfiedError
from langchain_rain.held import Held
from langchain_rain.passages import Passage, Which, passage_of
from langchain_rain.policy import Release, ReleasePolicy
from langchain_rain.search.protocol import Transcript
from langchain_rain.segments import Segments
from langchain_rain.trace import Record
from langchain_rain.verdicts import Judged

END: Final = object()
"""In place of a chunk: there are no more."""


@dataclass(frozen=True, slots=True)
class More:
    """Asks for the next piece of the input."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks for a judgement within what is left of a budget."""

    transcript: Transcript
    budget: Budget


@dataclass(frozen=True, slots=True)
class Stop:
    """Takes nothing more."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tells what happened."""

    record: Record


@dataclass(frozen=True, slots=True)
class Give:
    """Gives something out."""

    output: Any


Step: TypeAlias = More | Ask | Stop | Tell | Give
Steps: TypeAlias = Generator[Step, Any, None]
Finding: TypeAlias = Judged | UnsatisfiedError | EngineError
"""A judgement, or why there is none: a budget was spent, or the judge failed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """By what something is gated.

    Attributes:
        policy: what is given out in place of what does not satisfy.
        segments: where a stream is cut.
        budget: the limits of all judgements of one input.
        rubric: what is judged by, as records name it.
        which: the message that is judged.
        max_turns: how many of the last turns before it the judge sees; None for all.
        holds_all: whether a stream is held back to its end.
    """

    policy: ReleasePolicy
    segments: Segments
    budget: Budget
    rubric: dict[str, Any]
    which: Which = "last"
    max_turns: int | None = None
    holds_all: bool = False


@dataclass(slots=True)
class Gating:
    """One input on its way through a gate.

    Attributes:
        terms: by what it is gated.
    """

    terms: Terms
    _cost: Cost = field(default_factory=Cost)
    _seconds: float = 0.0
    _num_judgements: int = 0
    _spent: BudgetExceededError | None = None
    _waits_for_end: bool = False

    def whole(self, value: Any) -> Steps:
        """Gates an input that is there already; gives out one thing, the input itself if it satisfies."""
        passage = passage_of(value, self.terms.which)
        finding, release = yield from self._finished(passage, shown="")
        record = self._record(finding, release.bypass)
        yield Tell(("rain_gate", record))
        if release.addition is not None:
            yield Give(passage.replaced(release.text, record))
        else:
            yield Give(value if release.bypass is None else passage.marked(record))

    def stream(self) -> Steps:
        """Gates an input that arrives in chunks; what is given out adds up to what was taken, if all of it satisfies.

        Anything but texts and chunks of a message of a chat model is judged as a whole.
        """
        chunk = yield More()
        if chunk is END:
            return
        if not isinstance(chunk, str | AIMessageChunk):
            yield from self.whole((yield from _whole_of(chunk)))
            return
        held = Held()
        held.add(chunk)
        self._waits_for_end = self.terms.holds_all
        while (following := (yield More())) is not END:  # what ends here is judged once, as finished
            is_over = yield from self._give_segments(held)
            if is_over:
                return
            held.add(following)
        yield from self._give_rest(held)

    def _give_segments(self, held: Held) -> Generator[Step, Any, bool]:
        """Gives out the segments that are complete and satisfy; returns whether one did not, and all is over."""
        while not self._waits_for_end and (position := self._cut(held)):
            text = held.beginning(position)
            finding = yield from self._find(passage_of(text), is_finished=False)
            if self._may_be_given(finding):
                for output in held.give(position):
                    yield Give(output)
            elif not self._waits_for_end:
                yield Stop()
                release = yield from self._decide(finding, text, held.shown)
                yield from self._refuse(held, finding, release)
                return True
        return False

    def _cut(self, held: Held) -> int | None:
        segments = self.terms.segments
        position = segments.cut(held.text, num_segments=held.num_segments, num_before=len(held.shown))
        return position and held.place_before(position)

    def _may_be_given(self, finding: Finding) -> bool:
        """Whether a beginning may be given out; sees to it that what "best" will give out anyway waits for the end."""
        policy = self.terms.policy
        if isinstance(finding, Judged):
            return finding.is_satisfied or not (policy.holds_back or finding.verdict.is_vetoed)
        on_failure = policy.on_error if isinstance(finding, EngineError) else policy.on_unsatisfied
        self._waits_for_end = on_failure == "best"
        return False

    def _give_rest(self, held: Held) -> Steps:
        passage = passage_of(held.whole, self.terms.which)
        finding, release = yield from self._finished(passage, shown=held.shown)
        if release.addition is not None:
            yield from self._refuse(held, finding, release)
            return
        record = self._record(finding, release.bypass)
        yield Tell(("rain_gate", record))
        for output in held.give_rest(record if release.bypass is not None else None):
            yield Give(output)

    def _refuse(self, held: Held, finding: Finding, release: Release) -> Steps:
        record = self._record(finding, release.bypass)
        yield Tell(("rain_gate", record))
        yield Give(held.refusal(release.addition_after(held.shown), record))

    # --- Judging -----------------------------------------------------------------------------------------------------

    def _finished(self, passage: Passage, *, shown: str) -> Generator[Step, Any, tuple[Finding, Release]]:
        """Judges something finished; returns what is found and what is given out.

        Raises:
            UnsatisfiedError, EngineError: it must not be given out, and the policy is to raise.
        """
        finding = yield from self._find(passage, is_finished=True)
        return finding, (yield from self._decide(finding, passage.text, shown))

    def _decide(self, finding: Finding, text: str, shown: str) -> Generator[Step, Any, Release]:
        """What is given out; if that is an error, it is told how it came to it all the same."""
        try:
            return self._release(finding, text, shown)
        except (UnsatisfiedError, EngineError):
            yield Tell(("rain_gate", self._record(finding, None)))
            raise

    def _find(self, passage: Passage, *, is_finished: bool) -> Generator[Step, Any, Finding]:
        """Judges a passage, unless nothing is left of the budget."""
        spent = self._spent or self.terms.budget.exceeded_by(self._cost, self._seconds)
        if spent is not None:
            return spent
        try:
            transcript = passage.transcript(max_turns=self.terms.max_turns)
        except EngineError as error:
            return error
        asked = Transcript(transcript.prompt, transcript.answer, is_finished=is_finished)
        finding: Finding = yield Ask(asked, self.terms.budget.after(self._cost, self._seconds))
        self._num_judgements += 1
        if isinstance(finding, Judged):
            self._cost, self._seconds = self._cost + finding.cost, self._seconds + finding.seconds
            told = {**_told(finding), "is_finished": is_finished, "num_characters": len(asked.answer)}
            yield Tell(("rain_verdict", told))
        elif isinstance(finding, BudgetExceededError):
            self._spent = finding
        elif isinstance(finding, EngineError):
            self._cost, self._seconds = self._cost + (finding.cost or Cost()), self._seconds + finding.seconds
        return finding

    def _release(self, finding: Finding, text: str, shown: str) -> Release:
        """What is given out of a text of which something may have been shown.

        Raises:
            UnsatisfiedError, EngineError: nothing more, and the policy is to raise.
        """
        policy = self.terms.policy
        if isinstance(finding, Judged) and finding.is_satisfied:
            return Release(text)
        error = finding if isinstance(finding, EngineError) else _unsatisfied(finding, text)
        if isinstance(error, EngineError):
            release = policy.release_after(error, shown, text if policy.on_error == "best" else shown)
        else:
            release = policy.release_unsatisfied(error, shown, text if policy.on_unsatisfied == "best" else shown)
        is_refusal = release.addition is not None and release.bypass is None
        if is_refusal and self.terms.which == "user":
            raise error  # a refusal would go on to the model as if the user had said it
        return release

    def _record(self, finding: Finding, bypass: str | None) -> dict[str, Any]:
        """What is told of it all, under the names that answers use; `bypass` is the policy that let it pass, if any."""
        told, reason = (_told(finding), "judged") if isinstance(finding, Judged) else (_UNKNOWN, "budget")
        return {
            **told,
            "stop_reason": "error" if isinstance(finding, EngineError) else reason,
            "bypass": bypass,
            "num_judgements": self._num_judgements,
            "forward_passes": self._cost.forward_passes,
            "token_positions": self._cost.token_positions,
            "rubric": self.terms.rubric,
        }


_UNKNOWN: dict[str, Any] = {
    "value": None,
    "values": {},
    "is_satisfied": False,
    "is_vetoed": False,
    "is_abstained": False,
}


def _told(judged: Judged) -> dict[str, Any]:
    return {name: judged.record[name] for name in _UNKNOWN}


def _unsatisfied(finding: Judged | UnsatisfiedError, text: str) -> UnsatisfiedError:
    if isinstance(finding, Judged):
        return UnsatisfiedError("The text does not satisfy the rubric.", answer=text, verdict=finding.verdict)
    return type(finding)(str(finding), answer=text)


def _whole_of(first: Any) -> Generator[Step, Any, Any]:
    """All of a stream that is judged as a whole."""
    whole = first
    while (chunk := (yield More())) is not END:
        if not isinstance(whole, BaseMessageChunk) or type(chunk) is not type(whole):
            raise RainConfigError(
                f"input: of {type(first).__name__} one is allowed in a stream, given {type(chunk).__name__} after it."
            )
        whole = whole + chunk
    return whole
