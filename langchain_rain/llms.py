"""RainLLM: text in, text out, as a LangChain LLM."""

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, Field, PrivateAttr, SkipValidation, ValidationError, model_validator

from langchain_rain import drivers
from langchain_rain._version import __version__
from langchain_rain.config import RainConfig
from langchain_rain.drivers import Budget, Job, Outcome
from langchain_rain.engines.base import Cost, Engine
from langchain_rain.engines.loading import DEMO_MODEL, load_engine
from langchain_rain.errors import EngineError, RainConfigError, describe_mistakes
from langchain_rain.policy import Policy, Release, ReleasePolicy, describe
from langchain_rain.rubrics import Rubric
from langchain_rain.rubrics.evaluate import RubricJudge
from langchain_rain.search.paper import SearchResult, generate
from langchain_rain.search.protocol import Context, derive_search_seed
from langchain_rain.search.state import Search
from langchain_rain.streaming import Releasing, ahappenings, happenings


@dataclass(frozen=True, slots=True)
class _Answer:
    """One prompt being answered."""

    search: Search
    job: Job[SearchResult]
    seed: int

    def close_if_not_begun(self) -> None:
        """Closes what a driver did not come to: a task that is cancelled before its first turn closes nothing."""
        if inspect.getgeneratorstate(self.job.steps) == inspect.GEN_CREATED:
            drivers.close_contexts(self.job.contexts)


class RainLLM(BaseLLM):
    r"""A language model that rewinds: it judges its own continuations while it writes, and commits only good ones.

    The prompt is continued as it stands. An answer that ends without satisfying the rubric is refused by default.

    Example:
        ```python
        llm = RainLLM(model="path/to/model", rubric="harmlessness", seed=7)
        llm.invoke("Human: How do I wash the bike?\n\nAssistant:")
        ```

    Raises:
        RainConfigError: an argument is unknown or out of range.
        RubricError: there is no such rubric.
        EngineError: the model cannot be loaded or searched with.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: SkipValidation[str | Engine] = Field(
        default=DEMO_MODEL, description='Hugging Face id or folder, "demo" for the bundled model, or an engine.'
    )
    judge: SkipValidation[str | Engine | None] = Field(
        default=None, description="The model that judges, given like `model`; None: the writer judges itself."
    )
    rubric: SkipValidation[str | Rubric] = Field(
        default="harmlessness", description="What answers are judged by: a rubric, or the name of one in the library."
    )
    config: RainConfig = Field(default_factory=RainConfig, description="How to search.")
    seed: int | None = Field(default=None, description="Same seed, same answer; None: drawn, and told on the result.")
    max_tokens: int = Field(default=256, ge=1, description="Longest answer, in tokens.")
    temperature: float | None = Field(
        default=None, gt=0, le=10, allow_inf_nan=False, description="Of all sampling; None: that of `config`."
    )
    stop: list[str] | None = Field(default=None, description="The answer ends before any of these strings.")
    on_unsatisfied: SkipValidation[Policy] = Field(
        default="refuse", description='What to give when no answer satisfies: "refuse", "best", "raise", or a callable.'
    )
    on_error: SkipValidation[Policy] = Field(
        default="raise", description="The same when an engine fails; raising lets retries and fallbacks work."
    )
    refusal_message: str = Field(default="I cannot help with that.", min_length=1, description="What a refusal says.")
    max_seconds: float | None = Field(default=None, gt=0, description="Budget: wall-clock time per answer.")
    max_forward_tokens: int | None = Field(
        default=None, ge=1, description="Budget: token positions through the model per answer."
    )

    # What was given by name and is loaded; by name, so that a copy with other arguments never works with the old ones.
    _engines: dict[str, Engine] = PrivateAttr(default_factory=dict)
    _rubrics: dict[str, Rubric] = PrivateAttr(default_factory=dict)
    _nonce: str = PrivateAttr(default_factory=lambda: secrets.token_hex(8))

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except ValidationError as error:
            raise RainConfigError(describe_mistakes(type(self).__name__, error)) from error
        # Loaded now: a mistake shows here, not at the first call.
        _ = self._rubric, self._writer, self._judge

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the engines."""
        shared = {id(engine): engine for engine in (self._writer, self._judge)}
        return super().__deepcopy__({**(memo or {}), **shared})

    def __getstate__(self) -> dict[Any, Any]:
        """What is pickled: a model given by name goes by its name, and is loaded again where it is needed."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_engines": {}}}

    @model_validator(mode="after")
    def _check_rain_arguments(self) -> Self:
        for name in ("on_unsatisfied", "on_error"):
            policy = getattr(self, name)
            if not callable(policy) and policy not in ("refuse", "best", "raise"):
                raise ValueError(f"{name}: allowed are 'refuse', 'best', 'raise' or a callable, given {policy!r}")
        _check_stop(self.stop or [])
        return self

    @model_validator(mode="after")
    def _set_langchain_rain_version(self) -> Self:
        self._add_version("langchain-rain", __version__)
        return self

    @property
    def _writer(self) -> Engine:
        return self._engine("model")

    @property
    def _judge(self) -> Engine:
        return self._writer if self.judge is None else self._engine("judge")

    def _engine(self, argument: Literal["model", "judge"]) -> Engine:
        model = getattr(self, argument)
        if not isinstance(model, str):
            return load_engine(model, argument)
        if model not in self._engines:
            self._engines[model] = load_engine(model, argument)
        return self._engines[model]

    @property
    def _rubric(self) -> Rubric:
        if not isinstance(self.rubric, str):
            return _as_rubric(self.rubric)
        if self.rubric not in self._rubrics:
            self._rubrics[self.rubric] = _as_rubric(self.rubric)
        return self._rubrics[self.rubric]

    @property
    def _llm_type(self) -> str:
        return "rain"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """All that an answer depends on, so that a cache never mistakes one guard for another."""
        return {
            "model": dict(self._writer.identity),
            "judge": dict(self._judge.identity),
            "rubric": {"name": self._rubric.name, "hash": self._rubric.content_hash},
            "config": self._searching_config.model_dump(mode="json"),
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "own_stop": self.stop,  # under "stop" LangChain puts that of the call, None too
            "on_unsatisfied": self._policy_name(self.on_unsatisfied),
            "on_error": self._policy_name(self.on_error),
            "refusal_message": self.refusal_message,
            "max_seconds": self.max_seconds,
            "max_forward_tokens": self.max_forward_tokens,
        }

    def _policy_name(self, policy: Policy) -> str:
        """Names a policy; what has no name of its own is told apart by who holds it."""
        if isinstance(policy, str):
            return policy
        if inspect.isfunction(policy) and "<" not in policy.__qualname__:
            return f"{policy.__module__}.{policy.__qualname__}"
        return f"{policy!r} of {self._nonce}"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop if stop is not None else self.stop, **kwargs)
        params["ls_provider"] = "rain"
        params["ls_model_name"] = self._writer.name
        params["ls_temperature"] = self._searching_config.temperature
        params["ls_max_tokens"] = self.max_tokens
        return params

    @property
    def _searching_config(self) -> RainConfig:
        if self.temperature is None:
            return self.config
        return self.config.model_copy(update={"temperature": self.temperature})

    @property
    def _policy(self) -> ReleasePolicy:
        return ReleasePolicy(self.on_unsatisfied, self.on_error, self.refusal_message)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        answers = self._begin_all(prompts, stop, kwargs)
        outcomes = drivers.run_batch([answer.job for answer in answers])
        return self._result(answers, outcomes)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        answers = self._begin_all(prompts, stop, kwargs)
        tasks = [drivers.arun(answer.job) for answer in answers]
        try:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for answer in answers:
                answer.close_if_not_begun()
        return self._result(answers, [_without_exit(outcome) for outcome in outcomes])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        answer = self._begin(prompt, stop, kwargs)
        releasing = Releasing(partial(self._finish, answer), self._policy.holds_back)
        with closing(happenings(answer.job)) as events:
            for event in events:
                for chunk in releasing.chunks(event):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        answer = self._begin(prompt, stop, kwargs)
        releasing = Releasing(partial(self._finish, answer), self._policy.holds_back)
        async with aclosing(ahappenings(answer.job)) as events:
            async for event in events:
                for chunk in releasing.chunks(event):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Answers all inputs, merged; with `return_exceptions` each failure stands in its own place alone."""
        if return_exceptions:  # BaseLLM would repeat one exception for all; the engine merges threads as well
            return Runnable.batch(self, inputs, config, return_exceptions=True, **kwargs)
        return super().batch(inputs, config, return_exceptions=False, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Like `batch`, without blocking the event loop."""
        if return_exceptions:
            return await Runnable.abatch(self, inputs, config, return_exceptions=True, **kwargs)
        return await super().abatch(inputs, config, return_exceptions=False, **kwargs)

    def _begin_all(self, prompts: Sequence[str], stop: list[str] | None, unknown: Mapping[str, Any]) -> list[_Answer]:
        """Begins all answers, or none."""
        answers: list[_Answer] = []
        try:
            for prompt in prompts:
                answers.append(self._begin(prompt, stop, unknown))
        except BaseException:
            for answer in answers:
                drivers.close_contexts(answer.job.contexts)
            raise
        return answers

    def _begin(self, prompt: str, stop: list[str] | None, unknown: Mapping[str, Any]) -> _Answer:
        """Opens the contexts and makes the search for one prompt."""
        if unknown:
            raise RainConfigError(f"RainLLM takes no argument {', '.join(sorted(unknown))}; a call takes only `stop`.")
        _check_prompt(prompt)
        stop = stop if stop is not None else self.stop or []
        _check_stop(stop)
        contexts: dict[Context, Engine] = {}
        try:
            writing = self._writer.open(prompt, max_tokens=self.max_tokens, stop=stop)
            contexts[writing] = self._writer
            judging = writing
            if self._judge is not self._writer:
                judging = self._judge.open(prompt, max_tokens=self.max_tokens)
                contexts[judging] = self._judge
        except BaseException:
            drivers.close_contexts(contexts)
            raise
        config = self._searching_config
        judge = RubricJudge(self._rubric, judging, config.scoring, config.min_option_mass)
        seed = self.seed if self.seed is not None else secrets.randbits(63)
        search = Search(writing, judge, config.to_search_config(), derive_search_seed(seed, prompt), transcript=prompt)
        budget = Budget(max_seconds=self.max_seconds, max_forward_tokens=self.max_forward_tokens)
        return _Answer(search, Job(generate(search), contexts, budget), seed)

    def _result(self, answers: Sequence[_Answer], outcomes: Sequence[Outcome[SearchResult] | Exception]) -> LLMResult:
        generations = [[self._finish(answer, outcome)] for answer, outcome in zip(answers, outcomes, strict=True)]
        infos = [generation[0].generation_info or {} for generation in generations]
        usage = {
            "prompt_tokens": sum(answer.search.context.num_prompt_tokens for answer in answers),
            "completion_tokens": sum(info["rain"]["num_tokens"] for info in infos),
            "forward_tokens": sum(info["rain"]["token_positions"] or 0 for info in infos),
        }
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return LLMResult(generations=generations, llm_output={"token_usage": usage, "model_name": self._writer.name})

    def _finish(self, answer: _Answer, outcome: Outcome[SearchResult] | Exception) -> Generation:
        """What the caller is given of one answer; what it raises is the policy's."""
        search = answer.search
        if isinstance(outcome, EngineError):
            release = self._policy.release_after(outcome, search.satisfied_text, search.tree.root.text)
            return Generation(text=release.text, generation_info=self._info(answer, None, release, None))
        if isinstance(outcome, Exception):
            raise outcome
        release = self._policy.release(outcome.result, search.satisfied_text)
        return Generation(text=release.text, generation_info=self._info(answer, outcome.result, release, outcome.cost))

    def _info(
        self, answer: _Answer, result: SearchResult | None, release: Release, cost: Cost | None
    ) -> dict[str, Any]:
        settings = {
            "num_tokens": len(answer.search.tree.root.prefix),
            "preset": self._searching_config.preset_name,
            "rubric": {"name": self._rubric.name, "hash": self._rubric.content_hash},
            "seed": answer.seed,
        }
        finish: Literal["stop", "length", "refusal"] = "refusal"
        if release.bypass is not None or (result is not None and result.is_satisfied):
            ended_by_itself = result is not None and result.stop_reason in ("eos", "stop")
            finish = "stop" if ended_by_itself else "length"
        return {"finish_reason": finish, "rain": describe(result, release, cost=cost, settings=settings)}


def _as_rubric(rubric: Any) -> Rubric:
    if isinstance(rubric, Rubric):
        return rubric
    if isinstance(rubric, str):
        return Rubric.load(rubric)
    raise RainConfigError(f"rubric: a Rubric or the name of one in the library is allowed, given {rubric!r}.")


def _check_prompt(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RainConfigError(
            f"The prompt {prompt!r} is not valid Unicode text at position {error.start}: {error.reason}."
        ) from error


def _check_stop(stop: Any) -> None:
    if isinstance(stop, str) or not all(isinstance(each, str) and each for each in stop):
        raise RainConfigError(f"stop: a list of strings, none of them empty, is allowed, given {stop!r}.")


def _without_exit(outcome: Outcome[SearchResult] | BaseException) -> Outcome[SearchResult] | Exception:
    if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
        raise outcome
    return outcome
