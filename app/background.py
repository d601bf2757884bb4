"""Sharing the event loop: background tasks, loops, coroutines side by side, and time slices."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from app.errors import AppError

SLICE_SECONDS = 0.01

_logger = structlog.get_logger("memoryd.background")

_T = TypeVar("_T")


@asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine during the block; at the end, cancel it and wait until it has ended.

    An exception that ended the work early is raised at the end of the block.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await stop(task)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended; raise the exception that ended it earlier.

    Unlike `suppress(CancelledError)`, it lets a cancellation of the caller through.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def attempt(name: str, work: Callable[[], Awaitable[object]]) -> bool:
    """Run `work`; log an exception under the name of the work. Return whether it succeeded."""
    try:
        await work()
    except AppError as error:  # such as a database that is away
        _logger.warning("put off", work=name, reason=error.detail)
    except Exception:
        _logger.exception("failed", work=name)
    else:
        return True
    return False


async def repeat(name: str, work: Callable[[], Awaitable[object]], *, seconds: float) -> None:
    """Run `work` forever, with a pause in between; failures are logged, and end nothing."""
    while True:
        await attempt(name, work)
        await asyncio.sleep(seconds)


async def run_together(*parts: Coroutine[Any, Any, _T]) -> list[_T]:
    """Run coroutines concurrently and return their results.

    The first error cancels the others, and is raised itself.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


class TimeSlice:
    """The time for which a request with much work may keep the event loop."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_SECONDS

    async def give_way(self) -> None:
        """Let others run if the slice is over."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_SECONDS


def is_cancelled() -> bool:
    """Return whether the current task itself is canceled, not one that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
