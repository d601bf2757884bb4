"""Run the model calls of a job concurrently."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.conversations.types import Ask
from app.providers.llm.base import Completion, Request

_T = TypeVar("_T")


async def run_together(*parts: Coroutine[Any, Any, _T]) -> list[_T]:
    """Return all results; the first error cancels the other parts and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def limit_calls(ask: Ask, slots: asyncio.Semaphore) -> Ask:
    """Return an `Ask` that waits for a free slot."""

    async def ask_in_slot(request: Request, purpose: str) -> Completion:
        async with slots:
            return await ask(request, purpose)

    return ask_in_slot
