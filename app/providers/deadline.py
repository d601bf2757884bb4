"""How long a request to a provider may take, however slowly the provider sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.providers.errors import UnavailableError

_WAITS = 60
"""Seconds that the SDKs may wait between attempts, all together."""


def longest(timeout: float, max_retries: int) -> float:
    """Return the seconds for a request and its retries; `timeout` is that of a silent server."""
    return 2 * timeout * (1 + max_retries) + _WAITS * bool(max_retries)


@asynccontextmanager
async def within(seconds: float, name: str) -> AsyncIterator[None]:
    """Limit what is done inside; raises UnavailableError when the time is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError(f"{name} took longer than {seconds:g} seconds to answer") from error
