"""Some of many things at once."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")


async def as_they_come(
    given: Iterable[Given], find: Callable[[Given], Awaitable[Found]], *, concurrency: int
) -> AsyncGenerator[Found]:
    """Yields what came of each thing given, the fastest first.

    At most `concurrency` are under way at once, and no more are taken from `given`.
    """
    waiting = iter(given)
    under_way: set[asyncio.Future[Found]] = set()
    try:
        while True:
            for each in islice(waiting, concurrency - len(under_way)):
                under_way.add(asyncio.ensure_future(find(each)))
            if not under_way:
                return
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
