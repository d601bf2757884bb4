"""Changes that rest on what was read: made again when another writer comes in between."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from app.store.errors import TooManyConflictsError

Result = TypeVar("Result")

_ATTEMPTS = 20
"""As for patches of items: each round lets one of those who are in each other's way through."""


class OvertakenError(Exception):
    """Somebody changed what a change rests on, after it was looked at."""


async def repeated(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Return what an attempt comes to that nobody overtakes; raises TooManyConflictsError."""
    for _ in range(_ATTEMPTS):
        with suppress(OvertakenError):
            return await attempt()
    raise TooManyConflictsError
