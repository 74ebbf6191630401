"""RainGate: a judge to place after any model, or anywhere in a chain."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.prompt_values import ChatPromptValueConcrete, StringPromptValue
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, ValidationError, model_validator

from langchain_rain.budget import Budget
from langchain_rain.config import RainConfig
from langchain_rain.engines.base import Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.chat_model import CHARACTERS_PER_TOKEN
from langchain_rain.errors import RainConfigError, describe_mistakes
from langchain_rain.gating import END, Gating, Terms
from langchain_rain.judging import Loaded
from langchain_rain.passages import Which
from langchain_rain.passing import aclose, aled_by, apassed, close, led_by, nothing, passed
from langchain_rain.policy import Policy, ReleasePolicy
from langchain_rain.rubrics import Rubric
from langchain_rain.segments import Segments
from langchain_rain.verdicts import TranscriptJudge


class RainGate(RunnableSerializable[Any, Any]):
    """Judges what passes: it goes on unchanged if it satisfies a rubric; else `on_unsatisfied` says what happens.

    It takes and gives texts, messages, lists of messages and prompt values. Of a list or a prompt the last message is
    judged, in the context of those before it. A stream is held back to the ends of segments, each of which is judged
    with all before it.

    A call may bring what the rubric leaves open: `gate.invoke(text, documents=[...])`, or `bind`.

    Example:
        ```python
        gate = RainGate(rubric="harmlessness", judge="path/to/model")
        chain = prompt | model | gate | StrOutputParser()
        ```

    Raises:
        RainConfigError: an argument is unknown or out of range.
        RubricError: there is no such rubric.
        EngineError: the judge cannot be loaded.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    judge: SkipValidation[str | Engine | BaseChatModel | Callable[[str], Any] | None] = Field(
        default=None,
        description='Who judges: Hugging Face id or folder, "demo" for the bundled model, any LangChain chat model, an '
        "engine, or a function from the text to a value in [-1, 1]; None if the rubric asks no model.",
    )
    rubric: SkipValidation[str | Rubric] = Field(
        default="harmlessness",
        description="What is judged by: a rubric, a YAML file (.yaml, .yml), or the name of one in the library. A "
        "function that judges goes by its own.",
    )
    parameters: Mapping[str, Any] = Field(
        default_factory=dict, description="What the rubric leaves open; a call may bring more, or others."
    )
    config: RainConfig = Field(
        default_factory=RainConfig,
        description="How is judged: `accept_value`, `scoring`, `min_option_mass`, `calibrates`; and where a stream is "
        "cut: `segment_lengths`, `rollout_until`, `max_rollout_tokens`, at four characters a token.",
    )
    on_unsatisfied: SkipValidation[Policy] = Field(
        default="refuse", description='What to give instead: "refuse", "best", "raise", or a callable.'
    )
    on_error: SkipValidation[Policy] = Field(
        default="raise", description="The same when the judge fails; raising lets retries and fallbacks work."
    )
    refusal_message: str = Field(default="I cannot help with that.", min_length=1, description="What a refusal says.")
    max_seconds: float | None = Field(
        default=None, gt=0, description="Budget: time that is spent judging one input; then `on_unsatisfied` decides."
    )
    max_forward_tokens: int | None = Field(
        default=None, ge=1, description="Budget: token positions through the judge for one input."
    )
    timeout: float | None = Field(
        default=None, gt=0, description="Seconds of judging after which the judge counts as failed: see `on_error`."
    )
    max_judged_turns: int | None = Field(
        default=None, ge=1, description="How many of the last turns before it the judge sees; None: all."
    )
    which: Which = Field(default="last", description='The message that is judged: the last, or the last of the "user".')
    whole: bool = Field(
        default=False,
        description="Whether a stream too is judged as a whole, and held back to its end: it brings the text of "
        "`invoke` then.",
    )
    segment_growth: float = Field(
        default=0.25,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="A segment of a stream is at least this share of all before it, so that judging takes time in "
        "proportion to the text. 0 suits a judge with a cache of prefixes.",
    )

    loaded: SkipValidation[Loaded] = Field(
        default_factory=Loaded, exclude=True, repr=False, description="Engines that were loaded; leave it."
    )

    _made: tuple[tuple[Any, ...], TranscriptJudge] | None = PrivateAttr(default=None)

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes(type(self).__name__, error)) from error
        self._load()

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        if not isinstance(self.rubric, str | Rubric):
            raise ValueError(f"rubric: a Rubric, a file or the name of one in the library, given {self.rubric!r}")
        allowed = ("refuse", "best", "raise") if self.which == "last" else ("best", "raise")
        for name in ("on_unsatisfied", "on_error"):
            policy = getattr(self, name)
            if callable(policy) or policy in allowed:
                continue
            told = f"{name}: allowed are {', '.join(map(repr, allowed))} or a callable, given {policy!r}"
            if self.which == "user" and policy == "refuse":
                told += "; a refusal would go on to the model as if the user had said it"
            raise ValueError(told)
        return self

    def _load(self) -> None:
        """Loads the judge and the rubric, so that a mistake shows at once."""
        judge = self._judge
        if unknown := sorted(self.parameters.keys() - judge.parameters):
            allowed = ", ".join(sorted(judge.parameters)) or "none"
            raise RainConfigError(f"parameters: the rubric leaves open {allowed}, given {', '.join(unknown)}.")
        if self.parameters.keys() == judge.parameters:
            judge.rubric(**self.parameters)

    @property
    def _judge(self) -> TranscriptJudge:
        """The judge of these arguments: made anew if one of them was changed."""
        given = (self.judge, self.rubric, self.config, self.loaded)
        made = self._made
        if made is None or any(old is not new for old, new in zip(made[0], given, strict=True)):
            made = (given, TranscriptJudge(self.judge, self.rubric, config=self.config, loaded=self.loaded))
            self._made = made
        return made[1]

    def __getstate__(self) -> dict[Any, Any]:
        """Without the judge, which is made again where it is needed."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_made": None}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the engines."""
        shared = {id(each): each for each in (self.judge, self.loaded, self._made) if each is not None}
        return super().__deepcopy__({**(memo or {}), **shared})

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What it takes."""
        return str | StringPromptValue | ChatPromptValueConcrete | AnyMessage | list[AnyMessage]

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives: what it takes."""
        return self.InputType

    def as_input_guard(
        self, *, rubric: str | Rubric | None = None, on_unsatisfied: Policy = "raise", on_error: Policy = "raise"
    ) -> Self:
        """A gate by the same judge for what users ask: it judges the last message of the user in a prompt.

        What satisfies goes on unchanged. What follows the user's message, such as results of tools, is not judged.

        Args:
            rubric: about what users ask; by default that of this gate.
            on_unsatisfied: "raise", for `with_fallbacks` to answer; "best"; or a callable, whose text takes the place
                of what the user said. A refusal is not allowed: it would go on to the model as a prompt.
            on_error: the same for a judge that fails.

        Raises:
            RainConfigError: no rubric was given here or to the gate, and the default one is about answers; or another
                argument is not allowed.
        """
        if rubric is None and "rubric" not in self.model_fields_set and not self._is_function:
            raise RainConfigError(
                "rubric: one about what users ask is needed for a guard of prompts, given none; the default one asks "
                "whether an answer is harmless."
            )
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        changed = {"on_unsatisfied": on_unsatisfied, "on_error": on_error, "which": "user", "loaded": self.loaded}
        return type(self)(**{**kept, **({} if rubric is None else {"rubric": rubric}), **changed})

    @property
    def _is_function(self) -> bool:
        return self.judge is not None and isinstance(self._judge.engine, CallableEngine)

    # --- Calls -------------------------------------------------------------------------------------------------------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **parameters: Any) -> Any:
        """Judges an input that is there already; gives it on if it satisfies."""

        def gated(_: Any, run_manager: CallbackManagerForChainRun) -> Any:
            judge = self._filled(parameters)
            with closing(passed(Gating(self._terms(judge)).whole(input), iter(()), judge, run_manager)) as outputs:
                (output,) = outputs
            return output

        return self._call_with_config(gated, _described(input), config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **parameters: Any) -> Any:
        """Like `invoke`, without blocking the event loop."""

        async def gated(_: Any, run_manager: AsyncCallbackManagerForChainRun) -> Any:
            judge = self._filled(parameters)
            steps = Gating(self._terms(judge)).whole(input)
            async with aclosing(apassed(steps, nothing(), judge, run_manager)) as outputs:
                (output,) = [each async for each in outputs]
            return output

        return await self._acall_with_config(gated, _described(input), config)

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **parameters: Any) -> Iterator[Any]:
        """Gates a stream: what satisfies is given out segment by segment.

        The stream is closed at once where it does not.
        """
        try:
            chunks = led_by(next(input, END), input)  # so that whoever brings it starts before this does

            def gated(_: Any, run_manager: CallbackManagerForChainRun) -> Iterator[Any]:
                judge = self._filled(parameters)
                return passed(Gating(self._terms(judge)).stream(), chunks, judge, run_manager)

            with closing(self._transform_stream_with_config(iter(()), gated, config)) as outputs:  # type: ignore[type-var]
                yield from outputs
        finally:
            close(input)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **parameters: Any
    ) -> AsyncIterator[Any]:
        """Like `transform`, without blocking the event loop."""
        try:
            chunks = aled_by(await anext(input, END), input)

            def gated(_: Any, run_manager: AsyncCallbackManagerForChainRun) -> AsyncIterator[Any]:
                judge = self._filled(parameters)
                return apassed(Gating(self._terms(judge)).stream(), chunks, judge, run_manager)

            outputs = self._atransform_stream_with_config(nothing(), gated, config)
            async with aclosing(outputs) as closing_outputs:  # type: ignore[type-var]  # a generator, typed as an iterator
                async for output in closing_outputs:
                    yield output
        finally:
            await aclose(input)

    def _filled(self, parameters: Mapping[str, Any]) -> TranscriptJudge:
        return self._judge.filled(**{**self.parameters, **parameters})

    def _terms(self, judge: TranscriptJudge) -> Terms:
        """By what an input is gated, with a judge whose rubric leaves nothing open."""
        rubric = judge.rubric()
        is_function = self._is_function
        final = [each for each in rubric.criteria if each.applies_to == "final" and not is_function]
        may_veto_at_end = any(each.veto for each in final)
        return Terms(
            policy=ReleasePolicy(self.on_unsatisfied, self.on_error, self.refusal_message, may_veto_at_end),
            segments=self._segments,
            budget=Budget(self.max_seconds, self.max_forward_tokens, self.timeout),
            rubric=(
                {"name": judge.engine.name, "hash": None}
                if is_function
                else {"name": rubric.name, "hash": rubric.content_hash}
            ),
            which=self.which,
            max_turns=self.max_judged_turns,
            holds_all=self.whole or bool(final) or self.which == "user",
        )

    @property
    def _segments(self) -> Segments:
        """Where a stream is cut."""
        longest = self.config.max_rollout_tokens
        return Segments(
            tuple(length * CHARACTERS_PER_TOKEN for length in self.config.segment_lengths),
            self.segment_growth,
            self.config.rollout_until,
            None if longest is None else longest * CHARACTERS_PER_TOKEN,
        )


def _described(value: Any) -> dict[str, str]:
    """An input as traces of the gate name it: what it says may be rejected, and is in no event of the gate then."""
    return {"input": type(value).__name__}
