"""Background tasks: they end with their block, and their failures are not lost."""

import asyncio

import pytest

from app.background import background, repeat, run_together, stop
from app.errors import ConflictError


async def test_the_work_ends_with_the_block() -> None:
    async with background(asyncio.sleep(60)) as task:
        await asyncio.sleep(0)
        assert not task.done()
    assert task.cancelled()


async def test_a_failure_of_the_work_is_raised_at_the_end_of_the_block() -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        async with background(fail()):
            await asyncio.sleep(0)


async def test_a_cancellation_of_the_caller_is_not_swallowed() -> None:
    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)

    lingering = asyncio.create_task(linger())
    await asyncio.sleep(0)
    stopping = asyncio.create_task(stop(lingering))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping, lingering])
    assert stopping.cancelled()
    assert lingering.cancelled()


async def test_a_loop_survives_failures() -> None:
    errors: list[Exception] = [ConflictError("busy"), RuntimeError("a mistake")]
    succeeded = asyncio.Event()

    async def work() -> None:
        if errors:
            raise errors.pop()
        succeeded.set()

    async with background(repeat("testing", work, seconds=0)), asyncio.timeout(5):
        await succeeded.wait()


async def test_the_first_failure_cancels_the_rest_and_is_raised_itself() -> None:
    slow_ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            slow_ended.set()

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await run_together(slow(), fail())
    assert slow_ended.is_set()
