"""RainLLM: text in, text out, as a LangChain LLM."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict, model_validator

from langchain_rain import drivers
from langchain_rain._version import __version__
from langchain_rain.arguments import Answer, RainArguments, check_text
from langchain_rain.drivers import Outcome
from langchain_rain.engines.calling import Calls
from langchain_rain.errors import EngineError, RainConfigError
from langchain_rain.search.paper import SearchResult
from langchain_rain.streaming import Happening, Releasing, ahappenings, happenings


class RainLLM(RainArguments, BaseLLM):
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

    model_config = ConfigDict(extra="forbid")  # of two bases the last one's setting holds, and LangChain ignores extras

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load()

    @model_validator(mode="after")
    def _set_langchain_rain_version(self) -> Self:
        self._add_version("langchain-rain", __version__)
        return self

    @property
    def _llm_type(self) -> str:
        return "rain"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self.identity

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop if stop is not None else self.stop, **kwargs)
        params["ls_provider"] = "rain"
        params["ls_model_name"] = self.writer.name
        params["ls_temperature"] = self.searching_config.temperature
        params["ls_max_tokens"] = self.answer_limit
        return params

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        answers = self._begin_all(prompts, stop, kwargs, loop=None)
        outcomes = drivers.run_batch([answer.job for answer in answers])
        return self._result(answers, outcomes)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        answers = self._begin_all(prompts, stop, kwargs, loop=asyncio.get_running_loop())
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
        answer = self._begin(prompt, stop, kwargs, loop=None)
        releasing = Releasing(self.policy.holds_back)
        with closing(happenings(answer.job)) as events:
            for event in events:
                for chunk in _chunks(answer, releasing, event):
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
        answer = self._begin(prompt, stop, kwargs, loop=asyncio.get_running_loop())
        releasing = Releasing(self.policy.holds_back)
        async with aclosing(ahappenings(answer.job)) as events:
            async for event in events:
                for chunk in _chunks(answer, releasing, event):
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

    def _begin_all(
        self,
        prompts: Sequence[str],
        stop: list[str] | None,
        unknown: Mapping[str, Any],
        *,
        loop: asyncio.AbstractEventLoop | None,
    ) -> list[Answer]:
        """Begins all answers, or none."""
        answers: list[Answer] = []
        try:
            for prompt in prompts:
                answers.append(self._begin(prompt, stop, unknown, loop=loop))
        except BaseException:
            for answer in answers:
                drivers.close_contexts(answer.job.contexts)
            raise
        return answers

    def _begin(
        self,
        prompt: str,
        stop: list[str] | None,
        unknown: Mapping[str, Any],
        *,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Answer:
        """Begins the answer to one prompt."""
        if unknown:
            raise RainConfigError(f"RainLLM takes no argument {', '.join(sorted(unknown))}; a call takes only `stop`.")
        check_text("prompt", prompt)
        return self.begin(prompt, prompt, stop, calls=Calls(loop=loop))

    def _result(self, answers: Sequence[Answer], outcomes: Sequence[Outcome[SearchResult] | Exception]) -> LLMResult:
        generations = [[_finish(answer, outcome)] for answer, outcome in zip(answers, outcomes, strict=True)]
        infos = [generation[0].generation_info or {} for generation in generations]
        usage = {
            "prompt_tokens": sum(answer.search.context.num_prompt_tokens for answer in answers),
            "completion_tokens": sum(info["rain"]["num_tokens"] for info in infos),
            "forward_tokens": sum(info["rain"]["token_positions"] or 0 for info in infos),
        }
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        return LLMResult(generations=generations, llm_output={"token_usage": usage, "model_name": self.writer.name})


def _chunks(answer: Answer, releasing: Releasing, happening: Happening) -> Iterator[GenerationChunk]:
    """The chunks that may be given out now; the last brings what is told of the whole answer."""
    if isinstance(happening, Outcome | EngineError):
        whole = _finish(answer, happening)
        assert whole.text.startswith(releasing.released)
        rest = whole.text[len(releasing.released) :]
        yield GenerationChunk(text=rest, generation_info=whole.generation_info)
    elif text := releasing.take(happening):
        yield GenerationChunk(text=text)


def _finish(answer: Answer, outcome: Outcome[SearchResult] | Exception) -> Generation:
    """What the caller is given of one answer; what it raises is the policy's."""
    release = answer.release(outcome)
    return Generation(text=release.text, generation_info=answer.info(outcome, release))


def _without_exit(outcome: Outcome[SearchResult] | BaseException) -> Outcome[SearchResult] | Exception:
    if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
        raise outcome
    return outcome
