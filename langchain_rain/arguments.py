"""What `ChatRain` and `RainLLM` are told, and how an answer is begun and described by it."""

import inspect
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SkipValidation,
    ValidationError,
    model_validator,
)

from langchain_rain import drivers
from langchain_rain.budget import Budget
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Job, Outcome
from langchain_rain.engines.base import ChatEngine, Cost, Engine
from langchain_rain.engines.callables import CallableEngine
from langchain_rain.engines.calling import Calls
from langchain_rain.engines.dialogue import NEXT_TURNS, Dialogue
from langchain_rain.engines.loading import DEMO_MODEL, completions_engine
from langchain_rain.errors import EngineError, RainConfigError, describe_mistakes
from langchain_rain.functions import name_of_function
from langchain_rain.judging import Judging, Loaded, check_all_is_judged, open_judge, warn_if_at_chance
from langchain_rain.policy import Policy, Release, ReleasePolicy, describe, finish_reason
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.rubric import as_rubric
from langchain_rain.search import adaptive, paper
from langchain_rain.search.drafts import draft
from langchain_rain.search.paper import SearchResult
from langchain_rain.search.protocol import Context, derive_search_seed
from langchain_rain.search.state import Search
from langchain_rain.telemetry import Telemetry
from langchain_rain.telemetry.answers import Beginning

MAX_SECONDS = threading.TIMEOUT_MAX
"""The longest time that can be waited for."""

DEFAULT_MAX_TOKENS = 256
"""The longest answer where nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt being answered.

    Attributes:
        search: what is known so far.
        job: the search as a driver takes it.
        seed: the one it was begun with.
        arguments: what it was begun by.
    """

    search: Search
    job: Job[SearchResult]
    seed: int
    arguments: "RainArguments"

    def close_if_not_begun(self) -> None:
        """Closes what a driver did not come to: a task that is cancelled before its first turn closes nothing."""
        if inspect.getgeneratorstate(self.job.steps) == inspect.GEN_CREATED:
            drivers.close_contexts(self.job.contexts)

    def release(self, outcome: Outcome[SearchResult] | Exception) -> Release:
        """What the caller is given; what it raises is the policy's."""
        policy = self.arguments.policy
        if isinstance(outcome, EngineError):
            return policy.release_after(outcome, self.search.satisfied_text, self.search.tree.root.text)
        if isinstance(outcome, Exception):
            raise outcome
        return policy.release(outcome.result, self.search.satisfied_text)

    def info(self, outcome: Outcome[SearchResult] | Exception, release: Release) -> dict[str, Any]:
        """What the answer tells of itself: why it ended, and what happened."""
        result = outcome.result if isinstance(outcome, Outcome) else None
        settings = {
            "num_tokens": len(self.search.tree.root.prefix),
            "preset": self.arguments.searching_config.preset_name,
            "rubric": self.arguments.rubric_description,
            "seed": self.seed,
        }
        rain = describe(result, release, cost=cost_of(outcome), settings=settings)
        return {"finish_reason": finish_reason(result, release.bypass), "rain": rain}


def cost_of(outcome: Outcome[SearchResult] | Exception) -> Cost | None:
    """What was run for it, as far as that is known."""
    cost = outcome.cost if isinstance(outcome, Outcome) else getattr(outcome, "cost", None)
    assert cost is None or isinstance(cost, Cost)
    return cost


class RainArguments(BaseModel):
    """Arguments of `ChatRain` and `RainLLM`, and of one call of `ChatRain` where it brings its own."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: SkipValidation[str | Engine | BaseChatModel] = Field(
        default=DEMO_MODEL,
        description='Hugging Face id or folder, "demo" for the bundled model, any LangChain chat model, or an engine.',
    )
    judge: SkipValidation[str | Engine | BaseChatModel | Callable[[str], Any] | None] = Field(
        default=None,
        description="The model that judges, given like `model`, or a function from the transcript to a value in "
        "[-1, 1]; None: the writer judges itself.",
    )
    rubric: SkipValidation[str | Rubric] = Field(
        default="harmlessness",
        description="What answers are judged by: a rubric, a YAML file (.yaml, .yml), or the name of one in the "
        "library. A function that judges goes by its own.",
    )
    config: RainConfig = Field(default_factory=RainConfig, description="How to search.")
    seed: int | None = Field(default=None, description="Same seed, same answer; None: drawn, and told on the result.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest answer, in tokens; None: 256, or what a chat model does by itself."
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Of sampling, where a draft has failed at least 0.7; None: that of `config`.",
    )
    stop: list[str] | None = Field(default=None, description="The answer ends before any of these strings.")
    on_unsatisfied: SkipValidation[Policy] = Field(
        default="refuse", description='What to give when no answer satisfies: "refuse", "best", "raise", or a callable.'
    )
    on_error: SkipValidation[Policy] = Field(
        default="raise", description="The same when an engine fails; raising lets retries and fallbacks work."
    )
    refusal_message: str = Field(default="I cannot help with that.", min_length=1, description="What a refusal says.")
    max_seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Budget: wall-clock time per answer; the best so far goes by `on_unsatisfied`.",
    )
    max_forward_tokens: int | None = Field(
        default=None, ge=1, description="Budget: token positions through the model per answer."
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds per answer after which the model counts as failed: see `on_error`.",
    )

    telemetry: Telemetry | None = Field(
        default=None, exclude=True, repr=False, description="Reports what happens to OpenTelemetry."
    )

    # By name or object, so that a copy with other arguments never works with old engines; a field and not private, as
    # `configurable_fields` makes its copies from fields.
    loaded: SkipValidation[Loaded] = Field(
        default_factory=Loaded, exclude=True, repr=False, description="Engines that were loaded; leave it."
    )

    _rubrics: dict[str, Rubric] = PrivateAttr(default_factory=dict)
    _nonce: str = PrivateAttr(default_factory=lambda: secrets.token_hex(8))

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes(type(self).__name__, error)) from error

    @classmethod
    def from_server(
        cls,
        url: str | Sequence[str],
        *,
        model: str = "",
        api_key: SecretStr | str | None = None,
        tokenizer: Any = None,
        **arguments: Any,
    ) -> Self:
        """One that answers by an inference server: vLLM, llama-server or another that takes token ids.

        Args:
            url: where it is, for example "http://localhost:8000"; several for replicas of one model.
            model: its name there; by default the only one that is served.
            api_key: sent as bearer token.
            tokenizer: of the model: a folder, an id on the Hugging Face hub, or the tokenizer itself; by default what
                the server names as the model.
            **arguments: of the class. For more about the server give `model=CompletionsEngine(...)` to the class.

        Raises:
            RainConfigError: httpx or transformers is missing (extra `server`), or an argument is not allowed.
            EngineError: the server cannot be reached or searched with.
        """
        engine = completions_engine(url, model, api_key=api_key, tokenizer=tokenizer)
        return cls(model=engine, **arguments)

    def model_post_init(self, context: Any, /) -> None:
        """Goes on to the other base of a model: what pydantic makes of the private attributes here would end it."""
        super().model_post_init(context)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the engines."""
        shared = {id(each): each for each in (self.model, self.judge, self.loaded) if each is not None}
        return super().__deepcopy__({**(memo or {}), **shared})

    @model_validator(mode="after")
    def _check_rain_arguments(self) -> Self:
        for name in ("on_unsatisfied", "on_error"):
            policy = getattr(self, name)
            if not callable(policy) and policy not in ("refuse", "best", "raise"):
                raise ValueError(f"{name}: allowed are 'refuse', 'best', 'raise' or a callable, given {policy!r}")
        check_stop(self.stop or [])
        return self

    def load(self) -> None:
        """Loads what is given by name, so that a mistake shows at once and not at the first call; tries the judge."""
        self._check_function()
        _ = self.writer, self.loaded.guards(self.used_rubric)
        warn_if_at_chance(self.used_rubric, self.judging_engine, self.config, self.loaded)

    def _check_function(self) -> None:
        """Checks that no criterion goes missing beside a function that judges, which goes by its own."""
        check_all_is_judged(self.used_rubric, self.judging_engine, self.judge)

    @property
    def writer(self) -> Engine:
        """The engine that writes."""
        return self.loaded.engine(self.model, "model")

    @property
    def judging_engine(self) -> Engine:
        """The engine that judges; the writer unless another was given."""
        return self.writer if self.judge is None else self.loaded.engine(self.judge, "judge")

    @property
    def used_rubric(self) -> Rubric:
        """The rubric as such."""
        return self.rubric_of(self.rubric)

    def rubric_of(self, given: Any) -> Rubric:
        """The rubric that was given, read once if it was by name."""
        if not isinstance(given, str):
            return _as_rubric(given)
        if given not in self._rubrics:
            self._rubrics[given] = _as_rubric(given)
        return self._rubrics[given]

    @property
    def rubric_description(self) -> dict[str, Any]:
        """What answers are judged by, as results and cache keys name it."""
        if isinstance(self.judging_engine, CallableEngine):
            return {"name": self.judging_engine.name, "hash": None}
        return {"name": self.used_rubric.name, "hash": self.used_rubric.content_hash}

    @property
    def searching_config(self) -> RainConfig:
        """How to search, with the temperature that goes before that of `config`."""
        if self.temperature is None:
            return self.config
        return self.config.model_copy(update={"temperature": self.temperature})

    @property
    def policy(self) -> ReleasePolicy:
        """What the caller is given."""
        is_function = isinstance(self.judging_engine, CallableEngine)
        criteria = () if is_function else self.used_rubric.criteria
        may_veto_at_end = any(each.veto and each.applies_to == "final" for each in criteria)
        return ReleasePolicy(self.on_unsatisfied, self.on_error, self.refusal_message, may_veto_at_end)

    @property
    def answer_limit(self) -> int:
        """The longest answer of a model in this process, in tokens."""
        return self.max_tokens if self.max_tokens is not None else DEFAULT_MAX_TOKENS

    @property
    def identity(self) -> dict[str, Any]:
        """All that an answer depends on, so that a cache never mistakes one guard for another."""
        return {
            "model": dict(self.writer.identity),
            "judge": self._judge_identity,
            "rubric": self.rubric_description,
            "guards": {name: dict(guard.identity) for name, guard in self.loaded.guards(self.used_rubric).items()},
            "config": self.searching_config.model_dump(mode="json"),
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "own_stop": self.stop,  # under "stop" LangChain puts that of the call, None too
            "on_unsatisfied": self._policy_name(self.on_unsatisfied),
            "on_error": self._policy_name(self.on_error),
            "refusal_message": self.refusal_message,
            "max_seconds": self.max_seconds,
            "max_forward_tokens": self.max_forward_tokens,
            "timeout": self.timeout,
        }

    @property
    def _judge_identity(self) -> dict[str, Any]:
        if isinstance(self.judging_engine, CallableEngine):
            return {"engine": "callable", "name": self._policy_name(self.judge)}
        return dict(self.judging_engine.identity)

    def _policy_name(self, policy: Any) -> str:
        """Names a policy; what has no name of its own is told apart by who holds it."""
        if isinstance(policy, str):
            return policy
        return name_of_function(policy) or f"{policy!r} of {self._nonce}"

    @property
    def budget(self) -> Budget:
        """The limits of one answer."""
        return Budget(self.max_seconds, self.max_forward_tokens, self.timeout)

    def begin(
        self,
        prompt: str | Dialogue,
        transcript: str,
        stop: list[str] | None,
        *,
        calls: Calls,
        budget: Budget | None = None,
        with_more: Callable[[Judging, Context], Judging] | None = None,
        may_begin_anew: bool = False,
    ) -> Answer:
        """Opens the contexts and makes the search for one prompt.

        Args:
            prompt: what is to be answered.
            transcript: what stands before the answer when it is judged.
            stop: of this call; None for the own.
            calls: on whose behalf it is.
            budget: what is left of the own; None for all of it.
            with_more: makes of the judge, and of the conversation it judges in, one that judges more; it closes what
                was opened if it fails.
            may_begin_anew: whether another attempt follows if an engine fails in a way that may pass.
        """
        stop = stop if stop is not None else self.stop or []
        check_stop(stop)
        self._check_function()  # a call may bring a rubric of its own
        writer, judging_engine, config = self.writer, self.judging_engine, self.searching_config
        writing = _open(writer, prompt, max_tokens=self.answer_limit, stop=stop)
        try:
            judging = open_judge(
                self.used_rubric,
                judging_engine,
                config,
                loaded=self.loaded,
                context=writing if judging_engine is writer else None,
                calls=calls,
                max_tokens=self.answer_limit,
            )
            judging = with_more(judging, writing) if with_more is not None else judging
        except BaseException:
            writer.channel.close(writing)
            raise
        seed = self.seed if self.seed is not None else secrets.randbits(63)
        search = Search(
            writing,
            judging.judge,
            config.to_search_config(),
            derive_search_seed(seed, transcript),
            transcript=transcript,
        )
        play = draft if self._writes_whole else adaptive.generate if config.adaptive else paper.generate
        observer = None
        if self.telemetry is not None:
            observer = self.telemetry.watch(
                search, self._beginning(prompt, seed, calls=calls, may_begin_anew=may_begin_anew)
            )
        contexts = {writing: writer, **judging.contexts}
        job = Job(play(search), contexts, budget or self.budget, observer)
        return Answer(search, job, seed, self)

    @property
    def _writes_whole(self) -> bool:
        """Whether the engine that writes shows no tokens."""
        return isinstance(self.writer, ChatEngine) and self.writer.writes_whole_messages

    def _beginning(self, prompt: str | Dialogue, seed: int, *, calls: Calls, may_begin_anew: bool) -> Beginning:
        """What whoever looks on is told of an answer when it begins."""
        config = self.searching_config
        return Beginning(
            operation="text_completion" if isinstance(prompt, str) else "chat",
            prompt=prompt,
            model=self.writer.name,
            judge_model=self.judging_engine.name,
            rubric=self.rubric_description,
            preset=config.preset_name,
            seed=seed,
            temperature=config.temperature,
            max_tokens=self.max_tokens if self._writes_whole else self.answer_limit,
            policy=self.policy,
            may_begin_anew=may_begin_anew,
            calls=calls.context,
        )


def _open(engine: Engine, prompt: str | Dialogue, *, max_tokens: int, stop: list[str]) -> Context:
    if isinstance(prompt, str) or isinstance(engine, ChatEngine):
        return engine.open(prompt, max_tokens=max_tokens, stop=stop)  # type: ignore[arg-type]  # not narrowed
    return engine.open(prompt.as_lines, max_tokens=max_tokens, stop=[*stop, *NEXT_TURNS])


def check_stop(stop: Any) -> None:
    """Checks stop strings.

    Raises:
        RainConfigError: it is no list of strings, or one of them is empty.
    """
    if isinstance(stop, str) or not all(isinstance(each, str) and each for each in stop):
        raise RainConfigError(f"stop: a list of strings, none of them empty, is allowed, given {stop!r}.")


def check_text(what: str, text: str) -> None:
    """Checks that a text is valid Unicode.

    Raises:
        RainConfigError: it holds half of a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RainConfigError(
            f"The {what} {text!r} is not valid Unicode text at position {error.start}: {error.reason}."
        ) from error


def _as_rubric(rubric: Any) -> Rubric:
    if isinstance(rubric, Rubric | str):
        return as_rubric(rubric)
    raise RainConfigError(f"rubric: a Rubric, a file or the name of one in the library is allowed, given {rubric!r}.")
