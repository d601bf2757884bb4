"""Many clients at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def at_once(callers: int, work: Callable[[int], Awaitable[Result]]) -> list[Result]:
    """Do `work` for every number below `callers` at the same time; return the results in order."""
    gate = asyncio.Event()

    async def wait_and_work(number: int) -> Result:
        await gate.wait()
        return await work(number)

    tasks = [asyncio.create_task(wait_and_work(number)) for number in range(callers)]
    await asyncio.sleep(0)
    gate.set()
    return list(await asyncio.gather(*tasks))
