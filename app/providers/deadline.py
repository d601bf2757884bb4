"""Deadlines of requests to providers, however slowly a provider sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.providers.errors import UnavailableError

_WAITS = 60
"""Total seconds that the SDKs may wait between attempts."""


def longest(timeout: float, max_retries: int) -> float:
    """Return the deadline of a request and its retries; `timeout` is that of a silent server."""
    return 2 * timeout * (1 + max_retries) + _WAITS * bool(max_retries)


@asynccontextmanager
async def within(seconds: float, name: str) -> AsyncIterator[None]:
    """Limit the time of the block; raises UnavailableError when it is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError(f"{name} took longer than {seconds:g} seconds to answer") from error
