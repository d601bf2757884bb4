"""The HTTP client of providers' SDKs."""

from collections.abc import AsyncIterator

import httpx2
from typing_extensions import override

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20)


def provider_client(max_bytes: int) -> httpx2.AsyncClient:
    """Return a client that follows no redirect and reads at most `max_bytes` + 1 of a reply.

    A longer reply is cut there, and the reader can tell by its length; nothing is raised, because
    the SDKs would then ask, and pay, again. Compressed replies are neither requested nor
    decompressed: a few kilobytes may become gigabytes.
    """

    async def bound(response: httpx2.Response) -> None:
        response.headers.pop("content-encoding", None)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _CutStream(response.stream, max_bytes + 1)

    return httpx2.AsyncClient(
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [bound]},
        limits=_LIMITS,
    )


class _CutStream(httpx2.AsyncByteStream):
    """The first bytes of another stream."""

    def __init__(self, stream: httpx2.AsyncByteStream, size: int) -> None:
        self._stream = stream
        self._left = size

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                return

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()
