"""Optimistic concurrency: read, decide, write; start over if another writer was faster."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from app.errors import ConflictError

ATTEMPTS = 20
"""Default number of attempts; of writers that overtake one another, each round lets one through."""

ResultT = TypeVar("ResultT")


class OvertakenError(Exception):
    """Another writer changed what an attempt was based on; nothing was written."""


class TooManyConflictsError(ConflictError):
    """Other writers kept changing the item."""

    code = "too_many_conflicts"
    title = "Too many conflicts"

    def __init__(self) -> None:
        super().__init__("Other requests kept changing the same items. Nothing was changed; retry.")
        self.headers["Retry-After"] = "1"


async def retry_optimistically(
    attempt: Callable[[], Awaitable[ResultT]],
    *,
    attempts: int = ATTEMPTS,
    on: tuple[type[Exception], ...] = (OvertakenError,),
) -> ResultT:
    """Return the result of the first attempt that does not raise one of `on`.

    Each attempt reads again what it is based on. Raises TooManyConflictsError after the last one.
    """
    for _ in range(attempts):
        with suppress(*on):
            return await attempt()
    raise TooManyConflictsError
