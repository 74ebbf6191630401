"""What a guarded agent remembers in its state from one call of its model to the next."""

import hashlib
import json
from typing import Any, TypeAlias
from uuid import uuid4

from langchain.agents.middleware.types import ModelRequest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

Bookkeeping: TypeAlias = dict[str, Any]
"""What one middleware remembers in the agent's state, as plain data.

LangGraph streams a state with all that is private in it, so nothing that was withheld or taken back is kept here.
"""

SUMMARY = "summarization"
"""How LangChain's middleware marks a message that stands for those it has summarised."""


def stored(request: ModelRequest[Any], name: str) -> Bookkeeping | None:
    """What the middleware of this name has in the state."""
    states: dict[str, Bookkeeping] = request.state.get("rain") or {}  # type: ignore[assignment]  # of ours
    return states.get(name)


def remembered(request: ModelRequest[Any], name: str) -> Bookkeeping:
    """What is remembered since the last human message; one that a summary has swallowed is still the last."""
    asked = next((each.id for each in reversed(request.state["messages"]) if _is_human(each)), None)
    kept = stored(request, name)
    if kept is not None and asked in (None, kept["asked"]):
        return kept
    return nothing_since(asked)


def nothing_since(asked: str | None) -> Bookkeeping:
    """What is remembered at first, since a human message."""
    return {"asked": asked, "num_steps": 0, "taken_back": [], "pending": None}


def ids_in_state(request: ModelRequest[Any]) -> set[str | None]:
    """Ids of the messages that are in the agent's state, or will be.

    Results that LangChain puts in for calls that could not be read have no id yet, and go into the state with the
    answer; what other middleware shows to the model is in none.
    """
    messages = request.state["messages"]
    unread = {call["id"] for each in messages if isinstance(each, AIMessage) for call in each.invalid_tool_calls}
    ids = {each.id for each in messages}
    for each in request.messages:
        if each.id is None and isinstance(each, ToolMessage) and each.tool_call_id in unread:
            each.id = str(uuid4())
            ids.add(each.id)
    return ids - {None}


def digest(call: ToolCall) -> str:
    """Tells a call from others without saying what it is."""
    spelled = json.dumps([call["name"], call["args"]], sort_keys=True, default=repr)
    return hashlib.sha256(spelled.encode(errors="surrogatepass")).hexdigest()


def _is_human(message: AnyMessage) -> bool:
    return isinstance(message, HumanMessage) and message.additional_kwargs.get("lc_source") != SUMMARY
