"""What a caller is given when a search ends: the answer, a refusal, an error; and how that is marked and logged."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_rain.engines.base import Cost
from langchain_rain.errors import BudgetExceededError, EngineError, RainConfigError, UnsatisfiedError
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Verdict

logger = logging.getLogger(__name__)

Policy: TypeAlias = Literal["refuse", "best", "raise"] | Callable[[Any], str]
"""What happens to an answer that must not simply be given.

"refuse": what was released, then the refusal message. "best": the answer as it is. "raise": the error. A callable
takes the error (`UnsatisfiedError`, which carries answer and verdict, or `EngineError`) and returns what follows the
text that was released.
"""


PolicyName: TypeAlias = Literal["on_unsatisfied", "on_error"]
"""When a policy is asked: for an answer that does not satisfy, or for a model that failed."""

FinishReason: TypeAlias = Literal["stop", "length", "unsatisfied"]
"""Why an answer ended, as its caller is told; a search tells more (`search.paper.StopReason`)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with an answer whose search has ended.

    Attributes:
        action: "give" it, for it satisfies; "refuse" it; "raise" the error; let it out as the "best" there is, or let a
            "callable" say what follows.
        answer: what is given of it, unless it is raised.
        bypass: which policy lets something out that does not satisfy the rubric; None if none does.
    """

    action: Literal["give", "refuse", "raise", "best", "callable"]
    answer: str
    bypass: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """What the caller is given.

    Attributes:
        answer: what is given of the answer, beginning with what has been released before.
        addition: what follows it in place of the rest: a refusal, or what a callable says; None if the answer is whole.
        bypass: which policy let an answer out that did not satisfy the rubric; None if none did.
    """

    answer: str
    addition: str | None = None
    bypass: str | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return self.answer + self.addition_after(self.answer)

    def addition_after(self, shown: str) -> str:
        """The addition as it follows what is shown of the answer: on a line of its own."""
        if not self.addition or not shown or shown[-1].isspace():
            return self.addition or ""
        return "\n" + self.addition


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """Decides what of an answer is released, when it has ended and while it grows.

    Attributes:
        on_unsatisfied: for an answer whose last judgement does not satisfy, or that was cut short by a budget.
        on_error: for a search that an engine could not go on with.
        refusal_message: what a refusal says.
        may_veto_at_end: whether a criterion for finished answers may veto, so that nothing may be given out before.
    """

    on_unsatisfied: Policy
    on_error: Policy
    refusal_message: str
    may_veto_at_end: bool = False

    @property
    def holds_back(self) -> bool:
        """Whether committed text is held until it has been judged well; "best" gives it out as it is committed."""
        return self.on_unsatisfied != "best" or self.may_veto_at_end

    def decide(self, result: SearchResult | None, satisfied_text: str, committed_text: str) -> Decision:
        """What is done with an answer; without a result its engine failed.

        Args:
            result: what the search ended with.
            satisfied_text: the part of the answer up to the last commit judged well.
            committed_text: all of it.
        """
        if result is not None and result.is_satisfied:
            return Decision("give", committed_text)
        name: PolicyName = "on_error" if result is None else "on_unsatisfied"
        verdict = result.verdict if result is not None else None
        return self._decided(name, verdict, satisfied_text, committed_text)

    def _decided(self, name: PolicyName, verdict: Verdict | None, satisfied_text: str, committed_text: str) -> Decision:
        policy: Policy = getattr(self, name)
        if policy == "best":
            is_ruled_out = verdict is not None and verdict.is_vetoed
            if not committed_text or is_ruled_out:
                return Decision("refuse", "")  # there is nothing that may be given
            return Decision("best", committed_text, bypass=f"{name}=best")
        released = satisfied_text if self.holds_back else committed_text
        return Decision("callable", released, f"{name}=callable") if callable(policy) else Decision(policy, released)

    def release(self, result: SearchResult, satisfied_text: str) -> Release:
        """The text of a search that has ended; `satisfied_text` is its part up to the last commit judged well.

        Raises:
            UnsatisfiedError: it did not satisfy, and `on_unsatisfied="raise"`.
        """
        decision = self.decide(result, satisfied_text, result.text)
        if decision.action == "give":
            return Release(decision.answer)
        is_budget = result.stop_reason == "budget"
        error = (BudgetExceededError if is_budget else UnsatisfiedError)(
            f"No answer satisfied the rubric; the search ended with stop_reason={result.stop_reason!r}.",
            answer=result.text,
            verdict=result.verdict,
        )
        return self._apply("on_unsatisfied", self.on_unsatisfied, decision, error)

    def release_unsatisfied(self, error: UnsatisfiedError, satisfied_text: str, whole_text: str) -> Release:
        """The text of an answer of another model that does not satisfy; `satisfied_text` is its part judged well.

        Raises:
            UnsatisfiedError: the same, with `on_unsatisfied="raise"`.
        """
        decision = self._decided("on_unsatisfied", error.verdict, satisfied_text, whole_text)
        return self._apply("on_unsatisfied", self.on_unsatisfied, decision, error)

    def release_after(self, error: EngineError, satisfied_text: str, committed_text: str) -> Release:
        """The text of a search that failed.

        Raises:
            EngineError: the same, with `on_error="raise"`.
        """
        return self._apply("on_error", self.on_error, self.decide(None, satisfied_text, committed_text), error)

    def _apply(self, name: str, policy: Policy, decision: Decision, error: Exception) -> Release:
        if decision.action == "raise":
            raise error
        if decision.action == "refuse":
            logger.info("Refused, %s: %s", name, named(error))
            return Release(decision.answer, self.refusal_message)
        if decision.action == "best":
            logger.warning("Bypass by %s='best', an answer that is not satisfied is given out: %s", name, named(error))
            return Release(decision.answer, bypass=decision.bypass)
        assert callable(policy)
        logger.warning("Bypass by %s, a callable answers: %s", name, named(error))
        addition = policy(error)
        if not isinstance(addition, str):
            raise RainConfigError(f"{name}: a callable that returns text is allowed; it returned {addition!r}.")
        return Release(decision.answer, addition, bypass=decision.bypass)


def finish_reason(result: SearchResult | None, bypass: str | None) -> FinishReason:
    """Why an answer ended; without a result its engine failed."""
    if bypass is None and (result is None or not result.is_satisfied):
        return "unsatisfied"
    return "stop" if result is not None and result.stop_reason in ("eos", "stop") else "length"


def named(error: Exception) -> str:
    """An error as logs may name it: what an engine says of it may quote text that is rejected."""
    if isinstance(error, EngineError):
        return f"{type(error).__name__} of {error.engine or 'an engine'}, {error.request or 'no'} request"
    return str(error)


def describe(
    result: SearchResult | None, release: Release, *, cost: Cost | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `generation_info["rain"]` says of an answer; without a result the engine failed."""
    verdict = result.verdict if result is not None else None
    return {
        "value": verdict.value if verdict is not None else None,
        "values": dict(verdict.values) if verdict is not None else {},
        "is_satisfied": result is not None and result.is_satisfied,
        "is_vetoed": verdict is not None and verdict.is_vetoed,
        "is_abstained": verdict is not None and verdict.is_abstained,
        "stop_reason": result.stop_reason if result is not None else "error",
        "bypass": release.bypass,
        "num_token_sets": result.num_token_sets if result is not None else 0,
        "num_simulations": result.num_simulations if result is not None else 0,
        "num_rewinds": result.num_rewinds if result is not None else 0,
        "num_rewound_tokens": result.num_rewound_tokens if result is not None else 0,
        "forward_passes": cost.forward_passes if cost is not None else None,
        "token_positions": cost.token_positions if cost is not None else None,
        **settings,
    }
