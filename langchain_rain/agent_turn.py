"""One call of an agent's model: what it goes on from, who answers, and what of it is remembered."""

import logging
from collections.abc import Callable
from typing import Any, TypeAlias, cast
from uuid import uuid4

from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage
from langgraph.types import Command

from langchain_rain.approvals import pending_calls
from langchain_rain.chat_models import ChatRain
from langchain_rain.errors import EngineError, UnsatisfiedError
from langchain_rain.policy import Policy
from langchain_rain.search.protocol import Transcript
from langchain_rain.tool_calls import RejectedCall
from langchain_rain.trajectories import Rewound, Trajectory, rewind
from langchain_rain.verdicts import Judged, TranscriptJudge

logger = logging.getLogger(__name__)

Bookkeeping: TypeAlias = dict[str, Any]
"""What one middleware remembers in the agent's state, as plain data."""


class Turn:
    """A call of the model under way.

    Args:
        name: of the middleware.
        request: what the agent asks of its model.
        guarded: who answers instead.
        judge: of trajectories; None where none is judged.
        max_steps: how many steps may be gone back for one human message.
        is_reversible: whether what a tool did may be taken as not done.
        asks_human: whether a human decides on calls that do not satisfy.

    Attributes:
        request: of the guarded model, from a trajectory that satisfies.
        transcript: what is to be judged next; None if nothing more is.
        refusal: what ends the run in place of a call of the model; None if it is called.
    """

    def __init__(
        self,
        name: str,
        request: ModelRequest[Any],
        guarded: ChatRain,
        judge: TranscriptJudge | None,
        *,
        max_steps: int,
        is_reversible: Callable[[str], bool],
        asks_human: bool,
    ) -> None:
        self._name = name
        self._guarded = guarded.model_copy(update={"unjudged_tools": guarded.unjudged_tools | structured(request)})
        self._rejected: list[RejectedCall] = []
        self._guarded._rejected = self._rejected
        self.request = request.override(model=self._guarded)
        self._judge = judge
        self._asks_human = asks_human
        self._kept = self._remembered()
        self._judged: Judged | None = None
        self._rewound: Rewound | None = None
        self.refusal: AIMessage | None = None
        self.transcript: Transcript | None = None
        trajectory = Trajectory.of(request.messages)
        if judge is not None and trajectory.steps and trajectory.steps[-1].results:
            left = max_steps - self._kept["num_steps"]
            rubric = judge.rubric().name
            self._rewinding = rewind(trajectory, max_steps=left, is_reversible=is_reversible, rubric=rubric)
            self._go_on(None)

    @property
    def judge(self) -> TranscriptJudge:
        """Who judges `transcript`."""
        assert self._judge is not None
        return self._judge

    def take(self, judged: Judged) -> None:
        """Takes the judgement of `transcript`."""
        self._judged = judged
        self._go_on(judged.is_satisfied)

    def fail(self, error: EngineError) -> None:
        """Takes that nobody could judge `transcript`; goes by `on_error`."""
        self.transcript = None
        self._apply("on_error", self._guarded.on_error, error)

    def _go_on(self, is_satisfied: bool | None) -> None:
        try:
            self.transcript = self._rewinding.send(is_satisfied)  # type: ignore[arg-type]  # the first takes nothing
        except StopIteration as stop:
            self.transcript = None
            self._rewound = stop.value
            self._settle(stop.value)

    def _settle(self, rewound: Rewound) -> None:
        """Goes on from what is left, or by the policy if it does not satisfy."""
        if rewound.num_steps or not rewound.is_satisfied:
            withheld = [each.name or "a tool" for each in rewound.withheld]
            logger.info(
                "%s: went back %d steps, withheld outputs of %s, satisfied now: %s%s",
                self._name,
                rewound.num_steps,
                ", ".join(withheld) or "no tool",
                rewound.is_satisfied,
                f"; stopped by {rewound.stopped_by}, which cannot be taken back" if rewound.stopped_by else "",
            )
            self._tell({"type": "rain_rewind", "num_steps": rewound.num_steps, "withheld": withheld})
        self.request = self.request.override(messages=cast(list[AnyMessage], rewound.messages))
        if not rewound.is_satisfied:
            assert self._judged is not None
            why = f"; {rewound.stopped_by} cannot be taken back" if rewound.stopped_by else ""
            told = f"What the agent has done does not satisfy the rubric, and it may go back no further{why}."
            error = UnsatisfiedError(told, verdict=self._judged.verdict)
            self._apply("on_unsatisfied", self._guarded.on_unsatisfied, error)

    def _apply(self, name: str, policy: Policy, error: UnsatisfiedError | EngineError) -> None:
        """Ends the run in place of a call of the model, or lets it go on, which is marked."""
        if policy == "raise":
            raise error
        message, bypass = self._guarded.refusal_message, None
        if policy == "best":
            logger.warning("Bypass by %s='best', an agent goes on that is not satisfied: %s", name, error)
            return
        if callable(policy):
            logger.warning("Bypass by %s, a callable answers: %s", name, error)
            message, bypass = policy(error), f"{name}=callable"
        record = self._judged.record if self._judged is not None else {"is_satisfied": False}
        reason = "error" if isinstance(error, EngineError) else "trajectory"
        rain = {**record, "stop_reason": reason, "bypass": bypass, "rubric": self._rubric}
        metadata = {"finish_reason": "unsatisfied", "rain": rain}
        self.refusal = AIMessage(message, id=str(uuid4()), response_metadata=metadata)

    @property
    def _rubric(self) -> dict[str, Any]:
        rubric = self.judge.rubric()
        return {"name": rubric.name, "hash": rubric.content_hash}

    def answered(self, response: ModelResponse[Any] | None) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """The response, None if there is a refusal, with all that changes in the agent's state beside it."""
        if response is None:
            assert self.refusal is not None
            response = ModelResponse(result=[self.refusal])
        kept, changes = dict(self._kept), self._changes()
        if self._rewound is not None and (self._rewound.num_steps or self._rewound.withheld):
            kept["num_steps"] += self._rewound.num_steps
            kept["withheld"] = [*kept["withheld"], *self._rewound.withheld]
            kept["taken_back"] = [*kept["taken_back"], *self._rewound.taken_back]
        self._look_for_reruns(response, kept["taken_back"])
        kept["pending"] = self._pending(response)
        if kept == self._kept and not changes:
            return response
        update: dict[str, Any] = {"rain": {self._name: kept}}
        return ExtendedModelResponse(response, Command(update={**update, **({"messages": changes} if changes else {})}))

    def _changes(self) -> list[BaseMessage]:
        """What makes of the agent's messages those that the model went on from, by their ids."""
        if self._rewound is None:
            return []
        withheld = {each.id for each in self._rewound.withheld}
        taken_back = {each.id for each in self._rewound.taken_back}
        replaced = [each for each in self._rewound.messages if each.id in withheld - taken_back]
        return [*replaced, *(RemoveMessage(id=str(each)) for each in sorted(map(str, taken_back)))]

    def _look_for_reruns(self, response: ModelResponse[Any], taken_back: list[BaseMessage]) -> None:
        """Says so where a call is made again that has run before and was taken back."""
        ran = [(call["name"], call["args"]) for each in taken_back for call in getattr(each, "tool_calls", ())]
        for message in response.result:
            for call in getattr(message, "tool_calls", ()):
                if (call["name"], call["args"]) in ran:
                    logger.warning("%s: %s runs again, as its first run was taken back.", self._name, call["name"])
                    self._tell({"type": "rain_rerun", "tool": call["name"]})

    def _pending(self, response: ModelResponse[Any]) -> Any:
        """Calls that a human is to decide on."""
        (message, *_) = response.result
        is_refused = message.response_metadata.get("finish_reason") == "unsatisfied"
        if not (self._asks_human and self._rejected and is_refused and message.id is not None):
            return None
        return pending_calls(message.id, self._rejected)

    def _remembered(self) -> Bookkeeping:
        """What is remembered since the last human message."""
        states: Any = self.request.state.get("rain") or {}
        asked = next((each.id for each in reversed(self.request.messages) if isinstance(each, HumanMessage)), None)
        kept: Bookkeeping = states.get(self._name, {})
        if kept.get("asked", "") == asked:
            return kept
        return {"asked": asked, "num_steps": 0, "withheld": [], "taken_back": [], "pending": None}

    def _tell(self, event: dict[str, Any]) -> None:
        writer = getattr(self.request.runtime, "stream_writer", None)
        if writer is not None:
            writer({**event, "middleware": self._name})


def structured(request: ModelRequest[Any]) -> frozenset[str]:
    """Names of tools that stand for structured output: nothing runs when they are called."""
    wanted: Any = request.response_format
    if wanted is None or isinstance(wanted, ProviderStrategy):
        return frozenset()
    schema = wanted.schema if isinstance(wanted, AutoStrategy) else wanted
    strategy = wanted if isinstance(wanted, ToolStrategy) else ToolStrategy(schema)
    tools = {getattr(each, "name", None) for each in request.tools}
    return frozenset(spec.name for spec in strategy.schema_specs) - tools
