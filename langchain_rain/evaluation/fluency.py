"""Whether answers are still fluent: how surprising their words are to the model that was asked, as perplexity.

A search takes back what its judge rejects, so that what stays may be what the model would hardly have said.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from langchain_rain.engines.base import Engine, Likelihood, TellsLikelihood
from langchain_rain.errors import EngineError
from langchain_rain.evaluation.strategies.asking import Question
from langchain_rain.evaluation.strategies.base import Content

T = TypeVar("T")

MAX_PERPLEXITY = 1e12
"""Above this a text is called impossible."""

IMPOSSIBLE = -1e12
"""Stands for the log probability of what a model rules out, minus infinity."""


def measures_fluency(writer: Engine) -> bool:
    """Whether a writer tells how probable a text is: the models of this process do."""
    return isinstance(writer, TellsLikelihood)


async def likelihood_of(writer: Engine, content: Content, prefill: str, answer: str) -> Likelihood:
    """How probable a writer finds an answer, whoever has written it.

    Args:
        writer: one that `measures_fluency`.
        content: what was asked.
        prefill: first words of the answer that were given.
        answer: what was given to the caller.

    Raises:
        EngineError: it cannot read the text, or failed.
    """
    assert isinstance(writer, TellsLikelihood)
    question = Question.of(content, prefill)
    prompt, text = question.prompt(writer), question.written(answer, writer)
    found = await _by_owner(writer, lambda: writer.log_likelihood(prompt, text))
    if math.isnan(found.logprob):
        raise EngineError(f"{writer.name} gives no number for how probable an answer is.", engine=writer.name)
    return replace(found, logprob=max(found.logprob, IMPOSSIBLE))  # of which there is a number in JSON


def perplexity(likelihoods: Iterable[Likelihood]) -> float | None:
    """Of all tokens of some texts together; None without any, or if one of them is impossible."""
    given = list(likelihoods)
    num_tokens = sum(each.num_tokens for each in given)
    if not num_tokens:
        return None
    surprise = -math.fsum(each.logprob for each in given) / num_tokens
    return math.exp(surprise) if surprise < math.log(MAX_PERPLEXITY) else None


async def _by_owner(engine: Engine, do: Callable[[], T]) -> T:
    """What `do` returns where the work of an engine is done, as it may be used there alone."""
    future: Future[T] = Future()

    def job() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(do())
        except EngineError as error:
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - such as a GPU's memory that is full: for who waits
            told = f"{engine.name} failed: {type(error).__name__}: {error}"
            future.set_exception(EngineError(told, engine=engine.name))

    engine.channel.post(job)
    return await asyncio.wrap_future(future)
