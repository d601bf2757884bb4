"""The HTTP client of providers' SDKs."""

from collections.abc import AsyncIterator
from http.cookiejar import CookieJar
from typing import Any

import httpx2
from typing_extensions import override

from app.providers.network import BoundedBackend, BoundedStream, FramingError

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
_MAX_CHUNKS = 20_000
"""Each costs some 10 µs, however small."""


def provider_client(max_bytes: int) -> httpx2.AsyncClient:
    """Return a client that follows no redirect and reads at most `max_bytes` + 1 of a reply.

    A longer reply is cut there, and the reader can tell by its length; nothing is raised, because
    the SDKs would then ask, and pay, again. Compressed replies are neither requested nor
    decompressed: a few kilobytes may become gigabytes.
    """

    async def bound(response: httpx2.Response) -> None:
        response.headers.pop("content-encoding", None)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            connection = response.extensions.get("network_stream")
            response.stream = _CutStream(response.stream, max_bytes + 1, connection)

    return _BoundedClient(
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        cookies=_EmptyJar(),
        event_hooks={"response": [bound]},
        limits=_LIMITS,
    )


class _BoundedClient(httpx2.AsyncClient):
    """A client that answers 502, not to be retried, for a server that sends endless framing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for transport in (self._transport, *self._mounts.values()):  # the latter lead to proxies
            if isinstance(transport, httpx2.AsyncHTTPTransport):
                # httpx2 has no option for it, and a pool of one's own would ignore proxies.
                transport._pool._network_backend = BoundedBackend()  # noqa: SLF001

    @override
    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            return await super().send(request, **options)
        except FramingError as error:
            return httpx2.Response(
                502,
                headers={"x-should-retry": "false"},  # which the SDKs heed
                json={"error": {"message": str(error)}},
                request=request,
            )


class _EmptyJar(CookieJar):
    """Keeps no cookies: a server could add some with each reply, and all are sent back."""

    @override
    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep none of the response's cookies."""


class _CutStream(httpx2.AsyncByteStream):
    """The first bytes of another stream."""

    def __init__(self, stream: httpx2.AsyncByteStream, size: int, connection: Any) -> None:
        self._stream = stream
        self._left = size
        self._connection = connection

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for chunk in self._stream:
            if isinstance(self._connection, BoundedStream):
                self._connection.credit(chunk)
            yield chunk[: self._left]
            self._left -= len(chunk)
            count += 1
            if self._left <= 0:
                return
            if count == _MAX_CHUNKS:
                raise FramingError(f"the reply has more than {_MAX_CHUNKS:,} chunks")

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()
