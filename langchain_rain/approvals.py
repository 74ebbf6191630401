"""Calls that did not satisfy, put before a human: LangChain's own form of an interrupt and of its answer."""

import logging
from collections.abc import Sequence
from typing import Any

from langchain.agents.middleware.human_in_the_loop import ActionRequest, HITLRequest, ReviewConfig
from langchain_core.messages import AIMessage
from langgraph.config import get_config
from langgraph.types import interrupt
from typing_extensions import TypedDict

from langchain_rain.errors import RainConfigError
from langchain_rain.tool_calls import RejectedCall

logger = logging.getLogger(__name__)

CHECKPOINTER = "__pregel_checkpointer"
"""Under which LangGraph tells a node who keeps the state, None for nobody."""


class PendingCall(TypedDict):
    """A call that a human may decide on, as it is kept in a state.

    Attributes:
        call: the call.
        is_satisfied: whether it satisfies, so that nobody is asked about it.
        verdict: what the judge said of it, in words.
    """

    call: dict[str, Any]
    is_satisfied: bool
    verdict: str


class Pending(TypedDict):
    """The calls of a message that was ruled out, and the message that stands in its place."""

    message_id: str
    calls: list[PendingCall]


def pending_calls(message_id: str, rejected: Sequence[RejectedCall]) -> Pending:
    """What a human is to decide on, as plain data."""
    calls = [
        PendingCall(call=dict(each.call), is_satisfied=each.is_satisfied, verdict=str(each.verdict))
        for each in rejected
    ]
    return Pending(message_id=message_id, calls=calls)


def check_can_ask() -> None:
    """Checks that the agent can wait for a human.

    Raises:
        RainConfigError: nothing keeps its state meanwhile.
    """
    if get_config().get("configurable", {}).get(CHECKPOINTER, "unknown") is None:
        raise RainConfigError(
            "on_unsatisfied='ask' stops the run until a human has decided; give create_agent(checkpointer=...), which "
            "keeps its state meanwhile, given None."
        )


def reviewed(pending: Pending) -> AIMessage | None:
    """The message with the calls that may run now; whoever answers with anything but decisions is asked again.

    An error would leave the answer in the checkpoint, to be read again at each attempt to give a better one.
    """
    problem = ""
    while True:
        answer = interrupt(review_request(pending, problem))
        try:
            return decided(pending, answer)
        except RainConfigError as error:
            problem = f" Not understood: {error}"
            logger.warning("The interrupt is open again. %s", error)


def review_request(pending: Pending, problem: str = "") -> HITLRequest:
    """What the interrupt says: each call that does not satisfy, to approve or to reject; and what is wrong."""
    asked = [each for each in pending["calls"] if not each["is_satisfied"]]
    return HITLRequest(
        action_requests=[
            ActionRequest(
                name=each["call"]["name"],
                args=each["call"]["args"],
                description=f"This call did not satisfy its rubric: {each['verdict']}{problem}",
            )
            for each in asked
        ],
        review_configs=[
            ReviewConfig(action_name=each["call"]["name"], allowed_decisions=["approve", "reject"]) for each in asked
        ],
    )


def decided(pending: Pending, answer: Any) -> AIMessage | None:
    """The message with the calls that may run now; None if all that were asked about were rejected.

    Raises:
        RainConfigError: the answer is not a decision for each call that was asked about.
    """
    asked = [each for each in pending["calls"] if not each["is_satisfied"]]
    decisions = answer.get("decisions") if isinstance(answer, dict) else None
    kinds = [each.get("type") for each in decisions if isinstance(each, dict)] if isinstance(decisions, list) else []
    if len(kinds) != len(asked) or any(kind not in ("approve", "reject") for kind in kinds):
        raise RainConfigError(
            f'decisions: {len(asked)} of {{"type": "approve"}} or {{"type": "reject"}} are wanted, given '
            f"{answer!r:.200}."
        )
    if "approve" not in kinds:
        return None
    approvals = iter(kinds)
    calls = [each["call"] for each in pending["calls"] if each["is_satisfied"] or next(approvals) == "approve"]
    approved = [each["call"]["name"] for each, kind in zip(asked, kinds, strict=True) if kind == "approve"]
    logger.warning("Bypass by a human, who approved calls that do not satisfy: %s", ", ".join(approved))
    rain = {"is_satisfied": False, "bypass": "on_unsatisfied=ask", "approved": approved}
    return AIMessage("", id=pending["message_id"], tool_calls=calls, response_metadata={"rain": rain})
