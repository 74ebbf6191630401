"""Many prompts through actors of Ray Data: one for each GPU of the cluster, or for each server.

What was answered is known to the ledger of whoever asks here, not to Ray, so a run may be stopped and gone on with in
either way. An actor that dies is started again with the prompts that it had; where answers got lost with it, which a
stream of rows cannot tell, those prompts are asked again.
"""

import asyncio
import json
import logging
import math
import os
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray import data
from ray.exceptions import RayError

from langchain_rain.answerer import Answerer, Settings, Tried
from langchain_rain.concurrency import as_they_come
from langchain_rain.errors import EngineError, JudgeAtChanceWarning, RainConfigError, RubricError
from langchain_rain.prompts import Prompt

ROUNDS_PER_TASK = 16
"""How many prompts a task of an actor has for each that is under way; at its end fewer and fewer are."""

MAX_STARTS = 4
"""Of actors in a run, for each there is at once; by itself Ray would start one that cannot live again and again."""

ERRORS: Mapping[str, type[Exception]] = {each.__name__: each for each in (RainConfigError, RubricError, EngineError)}
"""What ends a run and not only a row, by name, as it comes from an actor."""


def tried_by_actors(prompts: Iterable[Prompt], settings: Settings, *, concurrency: int) -> Generator[Tried]:
    """Yields what came of each prompt, once; the prompts that are left are held in memory.

    Args:
        prompts: what is to be answered.
        settings: how.
        concurrency: how many are under way at once in each actor.

    Raises:
        RainConfigError, RubricError, EngineError: an actor cannot begin, or not go on; the last one if Ray fails too.
    """
    waiting = {prompt.id: prompt for prompt in prompts}
    if not waiting:
        return
    _start()
    try:
        while waiting:
            num_before = len(waiting)
            for tried in _tried_in_one_pass(list(waiting.values()), settings, concurrency):
                if waiting.pop(tried.row["id"], None) is not None:  # a task that was begun again repeats itself
                    yield tried
            if len(waiting) == num_before:
                raise EngineError(f"Ray ended without a word on {num_before} prompts.", engine="ray")
    except RayError as error:
        raise EngineError(f"Ray failed: {_told(error)}", engine="ray", is_retryable=True) from error
    finally:
        ray.shutdown()


def _start() -> None:
    """Starts Ray here, or joins the cluster that the environment names (`RAY_ADDRESS`).

    Raises:
        EngineError: it cannot be started or joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # no `RayError`: nobody is there, or it is no address
        place = f"joined at RAY_ADDRESS={address!r}" if (address := os.environ.get("RAY_ADDRESS")) else "started"
        raise EngineError(f"Ray cannot be {place}: {_told(error)}", engine="ray") from error
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each row is handed on when it is there, not when there are 128 MB


def _told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _tried_in_one_pass(prompts: Sequence[Prompt], settings: Settings, concurrency: int) -> Iterator[Tried]:
    """What actors make of the prompts; some may be missing, and some come twice."""
    num_gpus = 0 if settings.servers else int(ray.cluster_resources().get("GPU", 0))
    num_actors = len(settings.servers) or num_gpus or 1
    given = [{"prompt": json.dumps([each.id, each.content, each.others])} for each in prompts]
    num_tasks = math.ceil(len(given) / (ROUNDS_PER_TASK * concurrency))
    answered = data.from_items(given, override_num_blocks=num_tasks).map_batches(
        AnsweringActor,
        fn_constructor_kwargs={
            "settings": settings,
            "concurrency": concurrency,
            "starts": ray.remote(num_cpus=0)(Starts).remote(MAX_STARTS * num_actors),
        },
        batch_size=None,
        compute=data.ActorPoolStrategy(size=num_actors),
        num_gpus=1 if num_gpus else None,
    )
    for row in answered.iter_rows():
        told = json.loads(row["told"])
        if "error" in told:
            raise ERRORS[told["error"]](told["message"])
        if "warning" in told:
            warnings.warn(told["warning"], JudgeAtChanceWarning, stacklevel=2)
        else:
            yield Tried(**told)


class Starts:
    """Counts how often actors were started."""

    def __init__(self, max_starts: int) -> None:
        self._num_left = max_starts

    def count(self) -> bool:
        """Counts a start; returns whether it is still allowed."""
        self._num_left -= 1
        return self._num_left >= 0


class AnsweringActor:
    """Answers the prompts of a task, some at once, and hands each on as it comes; it loads its models only once.

    Args:
        settings: how to answer.
        concurrency: how many are under way at once.
        starts: the actor that counts the starts of these.
    """

    def __init__(self, settings: Settings, concurrency: int, starts: Any) -> None:
        self._settings = settings
        self._concurrency = concurrency
        self._may_start = ray.get(starts.count.remote())
        self._answerer: Answerer | None = None

    def __call__(self, task: Mapping[str, Sequence[str]]) -> Iterator[dict[str, list[str]]]:
        """Yields a row for each prompt, before them one for each warning; or one with what ends the run."""
        prompts = [Prompt(*json.loads(each)) for each in task["prompt"]]
        try:
            for told in self._tell(prompts):
                yield {"told": [json.dumps(told)]}
        except tuple(ERRORS.values()) as error:
            yield {"told": [json.dumps({"error": type(error).__name__, "message": str(error)})]}

    def _tell(self, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
        if not self._may_start:
            raise EngineError("The actors of Ray died again and again; Ray's logs tell of what.", engine="ray")
        if self._answerer is None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", JudgeAtChanceWarning)
                self._answerer = Answerer(self._settings)
            yield from ({"warning": str(each.message)} for each in caught if each.category is JudgeAtChanceWarning)
        with asyncio.Runner() as runner:
            all_tried = as_they_come(prompts, self._answerer.answer, concurrency=self._concurrency)
            try:
                while (tried := runner.run(anext(all_tried, None))) is not None:
                    yield {"row": tried.row, "is_answered": tried.is_answered}
            finally:
                runner.run(all_tried.aclose())
