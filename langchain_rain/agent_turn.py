"""One call of an agent's model: what it goes on from, who answers, and what of it is remembered."""

import logging
from collections.abc import Callable
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolCall
from langchain_core.runnables.config import ensure_config
from langgraph.types import Command

from langchain_rain.agent_memory import digest, ids_in_state, nothing_since, remembered, stored
from langchain_rain.approvals import pending_calls
from langchain_rain.budget import Budget
from langchain_rain.callbacks import Run
from langchain_rain.chat_models import ChatRain
from langchain_rain.engines.base import Cost
from langchain_rain.errors import BudgetExceededError, EngineError, RainConfigError, UnsatisfiedError
from langchain_rain.guarded_requests import GuardedRequest, check_is_guarded, is_refusal, structured
from langchain_rain.policy import Policy
from langchain_rain.search.protocol import Transcript
from langchain_rain.tool_calls import RejectedCall
from langchain_rain.trajectories import Rewound, Trajectory, given_up, rewind
from langchain_rain.verdicts import Judged, TranscriptJudge

logger = logging.getLogger(__name__)

AgentPolicy: TypeAlias = Policy | Literal["ask"]
"""As of `ChatRain`; "ask" lets a human decide on calls that do not satisfy."""


class Turn:
    """A call of the model under way.

    Args:
        name: of the middleware.
        request: what the agent asks of its model.
        guarded: who answers instead.
        judge: of trajectories; None where none is judged.
        guard: makes a guarded model of another one.
        max_steps: how many steps may be gone back for one human message.
        is_reversible: whether what a tool did may be taken as not done.
        on_unsatisfied: what happens to a trajectory, or with "ask" to calls, that do not satisfy in the end.

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
        guard: Callable[[BaseChatModel], ChatRain],
        max_steps: int,
        is_reversible: Callable[[str], bool],
        on_unsatisfied: AgentPolicy,
    ) -> None:
        self._name = name
        self._rejected: list[RejectedCall] = []
        self._structured = structured(request)
        self._guarded = self._for_turn(guarded)

        def guard_another(model: BaseChatModel) -> BaseChatModel:
            if self._guards(model):
                return model
            outer = request.override(model=model).model  # of another guard's request, whose guard comes first
            return self._for_turn(guard(outer))

        is_rewound = isinstance(request, GuardedRequest) and request.is_rewound
        self.request = GuardedRequest.of(request.override(model=self._guarded), guard_another)
        self._judge = judge
        self._asks_human = on_unsatisfied == "ask"
        self._on_unsatisfied: Policy = "refuse" if on_unsatisfied == "ask" else on_unsatisfied
        self._kept = remembered(request, self._name)
        self._judged: Judged | None = None
        self._cost, self._seconds = Cost(), 0.0
        self._rewound: Rewound | None = None
        self.refusal: AIMessage | None = None
        self.transcript: Transcript | None = None
        self._ids = ids_in_state(request)
        self._trajectory = trajectory = Trajectory.of(request.messages)
        if judge is not None and trajectory.has_results:
            # Of two that go back in one turn, the changes of one would undo those of the other.
            left = 0 if is_rewound else max_steps - self._kept["num_steps"]
            rubric = judge.rubric().name
            self._rewinding = rewind(trajectory, max_steps=left, is_reversible=is_reversible, rubric=rubric)
            self._go_on(None)

    def _for_turn(self, guarded: ChatRain) -> ChatRain:
        """A guarded model that lets structured output pass and tells of the calls it rejects."""
        copy = guarded.model_copy(update={"unjudged_tools": guarded.unjudged_tools | self._structured})
        copy._rejected = self._rejected
        return copy

    def _guards(self, model: Any) -> bool:
        """Whether a model is guarded by this turn, perhaps inside of another guard."""
        while isinstance(model, ChatRain):
            if model._rejected is self._rejected:
                return True
            model = model.model
        return False

    @property
    def judge(self) -> TranscriptJudge:
        """Who judges `transcript`."""
        assert self._judge is not None
        return self._judge

    @property
    def budget(self) -> Budget:
        """What is left for judging `transcript`; drafts have one of their own."""
        return self._guarded.budget.after(self._cost, self._seconds)

    def take(self, judged: Judged) -> None:
        """Takes the judgement of `transcript`."""
        self._judged = judged
        self._cost, self._seconds = self._cost + judged.cost, self._seconds + judged.seconds
        self._go_on(judged.is_satisfied)

    def fail(self, error: EngineError | BudgetExceededError) -> None:
        """Goes by `on_error`, or `on_unsatisfied` where a budget is spent, as `transcript` was not judged.

        Raises:
            EngineError, BudgetExceededError: the same, if that is "raise".
        """
        self.transcript = None
        if isinstance(error, BudgetExceededError):
            if self._apply_policy(error, {"is_satisfied": False, "stop_reason": "budget"}):
                return
        else:
            release = self._guarded.policy.release_after(error, "", "")
            self._refuse(release.text, {"is_satisfied": False, "stop_reason": "error", "bypass": release.bypass})
        self._go_back(given_up(self._trajectory, self.judge.rubric().name))

    def _go_on(self, is_satisfied: bool | None) -> None:
        try:
            transcript = self._rewinding.send(is_satisfied)  # type: ignore[arg-type]  # the first takes nothing
            while not _is_unicode(transcript.answer):  # as what a tool gave back may be; nobody can judge it
                transcript = self._rewinding.send(False)
            self.transcript = transcript
        except StopIteration as stop:
            self.transcript = None
            self._settle(stop.value)

    def _settle(self, rewound: Rewound) -> None:
        """Goes on from what is left, or by the policy if it does not satisfy."""
        self._go_back(rewound)
        self.request = self.request.rewound(rewound.messages, is_rewound=rewound.num_steps > 0)
        if not rewound.is_satisfied:
            why = f"; {rewound.stopped_by} cannot be taken back" if rewound.stopped_by else ""
            error = UnsatisfiedError(
                f"What the agent has done does not satisfy the rubric, and it may go back no further{why}.",
                verdict=self._judged.verdict if self._judged is not None else None,
            )
            record = self._judged.record if self._judged is not None else {"is_satisfied": False}
            self._apply_policy(error, {**record, "stop_reason": "trajectory"})

    def _go_back(self, rewound: Rewound) -> None:
        """Remembers what was gone back, and tells of it."""
        self._rewound = rewound
        if rewound.is_satisfied and not rewound.num_steps:
            return
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

    def _apply_policy(self, error: UnsatisfiedError, rain: dict[str, Any]) -> bool:
        """Does what `on_unsatisfied` says; returns whether the agent goes on."""
        policy, message, bypass = self._on_unsatisfied, self._guarded.refusal_message, None
        if policy == "raise":
            raise error
        if policy == "best":
            logger.warning("Bypass by on_unsatisfied='best', an agent goes on that is not satisfied: %s", error)
            return True
        if callable(policy):
            logger.warning("Bypass by on_unsatisfied, a callable answers: %s", error)
            message, bypass = policy(error), "on_unsatisfied=callable"
        if not isinstance(message, str):
            raise RainConfigError(f"on_unsatisfied: a callable that returns text is allowed; it returned {message!r}.")
        self._refuse(message, {**rain, "bypass": bypass})
        return False

    def _refuse(self, message: str, rain: dict[str, Any]) -> None:
        rubric = self.judge.rubric()
        rain = {**rain, "rubric": {"name": rubric.name, "hash": rubric.content_hash}}
        metadata = {"finish_reason": "unsatisfied", "rain": rain}
        self.refusal = AIMessage(message, id=str(uuid4()), response_metadata=metadata)

    def answered(self, response: ModelResponse[Any] | None) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """The response, None if there is a refusal, with all that changes in the agent's state beside it."""
        if response is None:
            assert self.refusal is not None
            response = ModelResponse(result=[self.refusal])
        check_is_guarded(response)
        kept, changes = dict(self._kept), self._changes()
        if self._rewound is not None and (self._rewound.num_steps or self._rewound.withheld):
            kept["num_steps"] += self._rewound.num_steps
            kept["taken_back"] = [*kept["taken_back"], *map(digest, self._undone(self._rewound))]
        self._look_for_reruns(response, kept["taken_back"])
        kept["pending"] = self._pending(response)
        if kept == (stored(self.request, self._name) or nothing_since(kept["asked"])) and not changes:
            return response
        update: dict[str, Any] = {"rain": {self._name: kept}}
        return ExtendedModelResponse(response, Command(update={**update, **({"messages": changes} if changes else {})}))

    def _undone(self, rewound: Rewound) -> list[ToolCall]:
        """Calls that have run and of which the model does not know what came."""
        ids = {each.tool_call_id for each in rewound.withheld}
        ids |= {call["id"] for each in rewound.taken_back for call in getattr(each, "tool_calls", ())}
        turns = [step.turn for step in self._trajectory.steps if step.turn is not None]
        return [call for turn in turns for call in turn.tool_calls if call["id"] in ids]

    def _changes(self) -> list[BaseMessage]:
        """What makes of the agent's messages those that the model went on from, by their ids."""
        if self._rewound is None:
            return []
        withheld = {each.id for each in self._rewound.withheld} & self._ids
        taken_back = {str(each.id) for each in self._rewound.taken_back if each.id in self._ids}
        replaced = [each for each in self._rewound.messages if each.id in withheld - taken_back]
        return [*replaced, *(RemoveMessage(id=each) for each in sorted(taken_back))]

    def _look_for_reruns(self, response: ModelResponse[Any], taken_back: list[str]) -> None:
        """Says so where a call is made again that has run before and was taken back, or its output withheld."""
        for message in response.result:
            for call in getattr(message, "tool_calls", ()):
                if digest(call) in taken_back:
                    logger.warning(
                        "%s: %s runs again; what came of it before was taken back or withheld.",
                        self._name,
                        call["name"],
                    )
                    self._tell({"type": "rain_rerun", "tool": call["name"]})

    def _pending(self, response: ModelResponse[Any]) -> Any:
        """Calls that a human is to decide on."""
        (message, *_) = response.result
        if not (self._asks_human and self._rejected and is_refusal(message) and message.id is not None):
            return None
        return pending_calls(message.id, self._rejected)

    def _tell(self, event: dict[str, Any]) -> None:
        writer = getattr(self.request.runtime, "stream_writer", None)
        if writer is not None:
            writer({**event, "middleware": self._name})


def child_callbacks(*, is_async: bool) -> BaseCallbackManager | None:
    """For runs below that of the graph's node, which no stream shows; None outside of any run."""
    manager = ensure_config().get("callbacks")
    if not isinstance(manager, BaseCallbackManager) or manager.parent_run_id is None:
        return None
    run = Run.of(manager, manager.parent_run_id)
    return run.achildren() if is_async else run.children()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
