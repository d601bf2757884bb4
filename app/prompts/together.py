"""Work that is done side by side."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.conversations.types import Ask
from app.providers.llm.base import Completion, Request

_T = TypeVar("_T")


async def together(*parts: Coroutine[Any, Any, _T]) -> list[_T]:
    """Return what each part comes to; the first that fails ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def limited(ask: Ask, turns: asyncio.Semaphore) -> Ask:
    """Return an `Ask` that waits for its turn."""

    async def asking(request: Request, purpose: str) -> Completion:
        async with turns:
            return await ask(request, purpose)

    return asking
