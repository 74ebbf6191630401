"""RainMiddleware: a guarded agent.

Its every turn satisfies a rubric, its tool calls are judged before they run, and it goes back where the output of a
tool has led it astray. The agent's model is replaced by a guarded one for the call, so drafts that are rejected never
enter the agent's state or a stream. Rewinding changes the state by the ids of messages, together with the next turn.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    PrivateStateAttr,
    hook_config,
)
from langchain.agents.structured_output import StructuredOutputValidationError
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime

from langchain_rain.agent_memory import Bookkeeping
from langchain_rain.agent_turn import AgentPolicy, Turn, child_callbacks
from langchain_rain.approvals import check_can_ask, reviewed
from langchain_rain.call_arguments import CallArguments
from langchain_rain.chat_models import ChatRain
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.errors import BudgetExceededError, EngineError, RainConfigError
from langchain_rain.guarded_requests import is_refusal, refusal_in
from langchain_rain.policy import Policy
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import as_rubric
from langchain_rain.verdicts import TranscriptJudge

MAX_GUARDED = 8
"""Models that a guarded one is kept of; an agent has one or a few."""

RESERVED = frozenset(":|")
"""What LangGraph allows in no name of a node."""


def _merged(old: dict[str, Bookkeeping] | None, new: dict[str, Bookkeeping] | None) -> dict[str, Bookkeeping]:
    """Each middleware writes its own."""
    return {**(old or {}), **(new or {})}


class RainState(AgentState[Any]):
    """The state of a guarded agent: nothing of it is shown to the model, taken as input or given as output."""

    rain: NotRequired[Annotated[dict[str, Bookkeeping], PrivateStateAttr, _merged]]


class RainMiddleware(AgentMiddleware[RainState, Any, Any]):
    """Guards an agent made by `langchain.agents.create_agent`.

    Every turn of the model is drafted, judged by `rubric`, and drafted again until it satisfies or the budget ends, by
    a `ChatRain` around the agent's model. If that is a `ChatRain` already, it guards as it does.

    A model that another middleware puts in its place is guarded too, and of several guards each judges. Middleware that
    answers without the model comes before the guard in the list: what it says after it nobody has judged, an error.

    Example:
        ```python
        agent = create_agent(
            model, tools, middleware=[RainMiddleware("harmlessness", judge=judge, tool_rubric="my_tools.yaml")]
        )
        ```

    Args:
        rubric: what each turn is judged by, as of `ChatRain`.
        judge: who judges; None for the agent's model.
        tool_rubric: what each tool call is judged by before it runs; None for nothing of its own. Patterns and
            functions (`tool_calls.proposed_call`) check arguments exactly, and each of them that finds against a call
            rules it out, however criteria are aggregated.
        trajectory_rubric: what all that was done since the last human message is judged by, each time before the model
            goes on from outputs of tools, those included that the run before ended with; None: `rubric`, if
            `max_rewind_steps` is not 0.
        max_rewind_steps: how many steps may be gone back, for one human message, where the trajectory does not satisfy.
        is_reversible: of each tool by its name whether what it did may be taken as not done, so that its call can be
            taken back; else as its `metadata["is_reversible"]` says. A tool that nothing is said of is not.
        on_unsatisfied: what happens to a turn, or a trajectory, that does not satisfy in the end: "refuse" ends the run
            with the refusal message, "raise" with an error, "ask" interrupts it for a human to approve or reject calls
            (with anything else it refuses); "best" and a callable as of `ChatRain`. A call that does not satisfy runs
            under none of them, unless a human approves it.
        name: of the middleware, if there are several.
        **arguments: other arguments of `ChatRain`, for example `config`, `max_seconds`, `seed`, `on_error`.

    Raises:
        RainConfigError: an argument is unknown or out of range.
        RubricError: there is no such rubric.
    """

    state_schema = RainState

    def __init__(
        self,
        rubric: str | Rubric = "harmlessness",
        judge: Any = None,
        *,
        tool_rubric: str | Rubric | None = None,
        trajectory_rubric: str | Rubric | None = None,
        max_rewind_steps: int = 0,
        is_reversible: Mapping[str, bool] | None = None,
        on_unsatisfied: AgentPolicy = "refuse",
        name: str = "RainMiddleware",
        **arguments: Any,
    ) -> None:
        super().__init__()
        if not isinstance(max_rewind_steps, int) or isinstance(max_rewind_steps, bool) or max_rewind_steps < 0:
            raise RainConfigError(f"max_rewind_steps: a whole number from 0 on is allowed, given {max_rewind_steps!r}.")
        if trajectory_rubric is not None and max_rewind_steps == 0:
            raise RainConfigError(
                f"max_rewind_steps: at least 1 is allowed with trajectory_rubric={trajectory_rubric!r:.60}, which "
                "judges nothing else, given 0."
            )
        if "model" in arguments:
            raise RainConfigError(f"model: that of the agent is guarded; give none, given {arguments['model']!r:.80}.")
        if not isinstance(name, str) or not name or set(name) & RESERVED:
            raise RainConfigError(f"name: text without any of {' '.join(sorted(RESERVED))} is allowed, given {name!r}.")
        _check_policy(on_unsatisfied)
        self.asks_human = on_unsatisfied == "ask"
        self.on_unsatisfied: Policy = "refuse" if on_unsatisfied == "ask" else on_unsatisfied
        self.max_rewind_steps = max_rewind_steps
        self._arguments = {"rubric": rubric, "judge": judge, "tool_rubric": tool_rubric, **arguments}
        self._arguments["on_unsatisfied"] = self.on_unsatisfied
        self._trajectory_rubric = trajectory_rubric if trajectory_rubric is not None else rubric
        self._is_reversible = _checked_reversible(is_reversible)
        self._name = name
        self._guarded: list[tuple[Any, ChatRain, TranscriptJudge | None]] = []
        _check(self._arguments, self._trajectory_rubric)

    @property
    def name(self) -> str:
        """Names it among the middleware of an agent, and its bookkeeping in the state."""
        return self._name

    # --- Hooks -------------------------------------------------------------------------------------------------------

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Has a guarded model answer, from a trajectory that satisfies."""
        turn = self._turn(request)
        while turn.transcript is not None:
            try:
                judged = turn.judge.judge(
                    turn.transcript, callbacks=child_callbacks(is_async=False), budget=turn.budget
                )
            except (EngineError, BudgetExceededError) as error:
                turn.fail(error)
            else:
                turn.take(judged)
        if turn.refusal is not None:
            return turn.answered(None)
        try:
            return turn.answered(handler(turn.request))
        except StructuredOutputValidationError as error:
            return turn.answered(refusal_in(error))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Like `wrap_model_call`, without blocking the event loop."""
        turn = self._turn(request)
        while turn.transcript is not None:
            try:
                judged = await turn.judge.ajudge(
                    turn.transcript, callbacks=child_callbacks(is_async=True), budget=turn.budget
                )
            except (EngineError, BudgetExceededError) as error:
                turn.fail(error)
            else:
                turn.take(judged)
        if turn.refusal is not None:
            return turn.answered(None)
        try:
            return turn.answered(await handler(turn.request))
        except StructuredOutputValidationError as error:
            return turn.answered(refusal_in(error))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: RainState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Lets a human decide on calls that did not satisfy, if one is to be asked; ends a run that was refused."""
        kept = (state.get("rain") or {}).get(self.name, {})
        pending = kept.get("pending")
        if not pending:
            return self._ended(state)
        is_current = state["messages"][-1].id == pending["message_id"]  # else of a run that was given up before
        message = reviewed(pending) if is_current else None
        update: dict[str, Any] = {"rain": {self.name: {**kept, "pending": None}}}
        return {**update, **(self._ended(state) or {})} if message is None else {**update, "messages": [message]}

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: RainState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The same."""
        return self.after_model(state, runtime)

    def _ended(self, state: RainState) -> dict[str, Any] | None:
        """The end of a run that was refused: an agent that owes structured output would ask its model for ever."""
        owes_output = "structured_response" in state and state["structured_response"] is None
        return {"jump_to": "end"} if owes_output and is_refusal(state["messages"][-1]) else None

    # --- Guarded models ----------------------------------------------------------------------------------------------

    def _guard(self, model: BaseChatModel) -> tuple[ChatRain, TranscriptJudge | None]:
        """The guarded model around the agent's one, and who judges trajectories.

        A `ChatRain` is not guarded twice; only the calls are judged.
        """
        is_of_a_turn = isinstance(model, ChatRain) and model._rejected is not None
        key = model.loaded if isinstance(model, ChatRain) and is_of_a_turn else model
        for known, guarded, judge in self._guarded:
            if known is key:
                return _around(guarded, model) if is_of_a_turn else guarded, judge
        guarded = self._guarded_anew(model)
        judge = self._trajectory_judge(guarded) if self.max_rewind_steps else None
        self._guarded = [(key, guarded, judge), *self._guarded][:MAX_GUARDED]
        return guarded, judge

    def _guarded_anew(self, model: BaseChatModel) -> ChatRain:
        if not isinstance(model, ChatRain):
            return ChatRain(model=model, **self._arguments)
        if model._rejected is not None:  # another middleware guards for this turn, and that is guarded in turn
            judge = self._arguments["judge"]
            return ChatRain(
                model=model, **{**self._arguments, "judge": judge if judge is not None else _judge_of(model)}
            )
        rubric = self._arguments["tool_rubric"]
        if rubric is not None and model.tool_rubric is not None:
            raise RainConfigError(
                f"tool_rubric: the agent's ChatRain has one of its own, {model.used_tool_rubric!r:.80}; given "
                f"{rubric!r:.80} too. Give one of the two."
            )
        guarded = model if rubric is None else model.model_copy(update={"tool_rubric": rubric})
        guarded.load()
        return guarded

    def _trajectory_judge(self, guarded: ChatRain) -> TranscriptJudge:
        rubric = as_rubric(self._trajectory_rubric)
        judge = guarded.judging_engine if rubric.asked_criteria else None
        return TranscriptJudge(judge, rubric, config=guarded.config, loaded=guarded.loaded)

    def _turn(self, request: ModelRequest[Any]) -> Turn:
        if self.asks_human:
            check_can_ask()
        guarded, judge = self._guard(request.model)
        tools = {each.name: each for each in request.tools if isinstance(each, BaseTool)}
        return Turn(
            self.name,
            request,
            guarded,
            judge,
            guard=lambda model: self._guard(model)[0],
            max_steps=self.max_rewind_steps,
            is_reversible=lambda name: self._may_take_back(name, tools.get(name)),
            on_unsatisfied="ask" if self.asks_human else self.on_unsatisfied,
        )

    def _may_take_back(self, name: str, tool: BaseTool | None) -> bool:
        """Whether what a tool did may be taken as not done."""
        declared = (tool.metadata or {}).get("is_reversible") if tool is not None else None
        return self._is_reversible.get(name, declared) is True


def _judge_of(model: ChatRain) -> Any:
    """Who judges for a guarded model."""
    engine = model.judging_engine
    return model.judge if isinstance(engine, CallableEngine) else engine


def _around(guarded: ChatRain, model: BaseChatModel) -> ChatRain:
    """The same guard around another model, with the engines that are loaded but not that model's."""
    loaded = replace(guarded.loaded, engines=dict(guarded.loaded.engines))
    return guarded.model_copy(update={"model": model, "loaded": loaded})


def _checked_reversible(given: Any) -> dict[str, bool]:
    pairs = given.items() if isinstance(given, Mapping) else [] if given is None else [(None, given)]
    if any(not (isinstance(name, str) and isinstance(is_so, bool)) for name, is_so in pairs):
        raise RainConfigError(f"is_reversible: names of tools, each with True or False, are allowed, given {given!r}.")
    return dict(pairs)


def _check_policy(policy: Any) -> None:
    if not callable(policy) and policy not in ("refuse", "best", "raise", "ask"):
        raise RainConfigError(
            f"on_unsatisfied: 'refuse', 'best', 'raise', 'ask' or a callable is allowed, given {policy!r}."
        )


def _check(arguments: Mapping[str, Any], trajectory_rubric: str | Rubric) -> None:
    """Checks what can be checked before there is a model: a guard that is misspelt must not show at the first turn."""
    unknown = sorted(arguments.keys() - ChatRain.model_fields.keys())
    unknown += [name for name in ("loaded",) if name in arguments]
    if unknown:
        allowed = ", ".join(sorted(CallArguments.model_fields.keys() - {"model", "loaded"}))
        raise RainConfigError(f"RainMiddleware takes {allowed}; given {', '.join(unknown)}.")
    own = {name: value for name, value in arguments.items() if name in CallArguments.model_fields}
    checked = CallArguments(**own)
    _ = checked.used_rubric, checked.used_tool_rubric
    if not isinstance(trajectory_rubric, str | Rubric):
        raise RainConfigError(
            f"trajectory_rubric: a Rubric, a file or the name of one is allowed, given {trajectory_rubric!r}."
        )
    as_rubric(trajectory_rubric)
    if checked.judge is not None and not isinstance(checked.judge, str):
        _ = checked.judging_engine  # one by name is loaded with the first turn
