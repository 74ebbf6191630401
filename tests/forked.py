"""Processes that start in no time, to be killed: forked from one that has imported what they run.

The import of a program takes seconds, which is most of what a test costs that kills it again and again.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

_FORKING = multiprocessing.get_context("forkserver")


def forked(function: Callable[..., None], *arguments: Any) -> multiprocessing.context.ForkServerProcess:
    """A process of its own that has begun to run a function; the first one of all says which module is imported."""
    _FORKING.set_forkserver_preload([function.__module__])
    process = _FORKING.Process(target=function, args=arguments)
    process.start()
    return process
