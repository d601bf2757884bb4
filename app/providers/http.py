"""HTTP for providers' SDKs: bounded replies and framing, deadlines, and JSON read within limits."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar
from typing import Any

import httpcore2
import httpx2
from typing_extensions import override

from app.json_values import TooDeepError, check_values, is_deeper, parse_json
from app.providers.errors import UnavailableError

MAX_REPLY_BYTES = 2 << 20
_MAX_VALUES = 200_000
_MAX_DEPTH = 100

_RETRY_WAITS = 60
"""Total seconds that the SDKs may wait between attempts."""

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20)

_MAX_CHUNKS = 20_000
"""Maximum chunks of a reply; each takes about 10 µs, however small."""

_PIECE_BYTES = 4 << 10
"""Bytes parsed between two turns of the event loop: about 700 chunks, or 300 interim responses."""

_FRAMING_BYTES = 16 << 10
_CHUNK_FRAMING_BYTES = 16

_SURROGATE = re.compile("[\ud800-\udfff]")


class FramingError(Exception):
    """The server sends endless headers, interim responses, or tiny chunks."""


def provider_client(max_bytes: int, *, sends_bearer: bool = True) -> httpx2.AsyncClient:
    """Return a client that follows no redirect and reads at most `max_bytes` + 1 of a reply.

    A longer reply is cut there, and the reader can tell by its length; nothing is raised, because
    the SDKs would then ask, and pay, again. Without `sends_bearer` the header that the SDKs put
    the key into is removed. Compressed replies are neither requested nor
    decompressed: a few kilobytes may become gigabytes.
    """

    async def bound(response: httpx2.Response) -> None:
        response.headers.pop("content-encoding", None)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            connection = response.extensions.get("network_stream")
            response.stream = _CutStream(response.stream, max_bytes + 1, connection)

    async def remove_bearer(request: httpx2.Request) -> None:
        request.headers.pop("authorization", None)

    return _BoundedClient(
        follow_redirects=False,
        headers={"accept-encoding": "identity"},
        cookies=_EmptyJar(),
        event_hooks={"request": [] if sends_bearer else [remove_bearer], "response": [bound]},
        limits=_LIMITS,
    )


def request_deadline(timeout: float, max_retries: int) -> float:
    """Return the deadline of a request and its retries; `timeout` is that of a silent server."""
    return 2 * timeout * (1 + max_retries) + _RETRY_WAITS * bool(max_retries)


@asynccontextmanager
async def limit_time(seconds: float, name: str) -> AsyncIterator[None]:
    """Limit the time of the block, however slowly a provider sends; raises UnavailableError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError(f"{name} took longer than {seconds:g} seconds to answer") from error


def parse_reply(
    body: bytes, *, max_bytes: int = MAX_REPLY_BYTES, max_values: int = _MAX_VALUES
) -> Any:
    """Return a reply's JSON without lone surrogates; raises ValueError if invalid or too large."""
    if len(body) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes >> 20} MiB")
    check_values(body, max_values)
    try:
        value = parse_json(body)
    except TooDeepError:
        raise
    except ValueError:
        value = parse_json(_without_oddities(body))
    if is_deeper(value, _MAX_DEPTH):
        raise TooDeepError(f"it is nested deeper than {_MAX_DEPTH} levels")
    return value


def _without_oddities(body: bytes) -> bytes:
    """Return JSON with U+FFFD in place of lone surrogates, and null in place of NaN and Infinity.

    Python's servers write such words.
    """
    try:
        value = json.loads(body.decode(errors="replace"), parse_constant=lambda _: None)
    except RecursionError as error:
        raise TooDeepError("it is nested too deep") from error
    text = json.dumps(value, ensure_ascii=False)
    return _SURROGATE.sub("\ufffd", text).encode()


class _BoundedClient(httpx2.AsyncClient):
    """A client that answers 502, not to be retried, for a server that sends endless framing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for transport in (self._transport, *self._mounts.values()):  # the latter lead to proxies
            if isinstance(transport, httpx2.AsyncHTTPTransport):
                # httpx2 has no option for it, and a separate pool would ignore proxies.
                transport._pool._network_backend = _BoundedBackend()  # noqa: SLF001

    @override
    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            return await super().send(request, **options)
        except FramingError as error:
            return httpx2.Response(
                502,
                headers={"x-should-retry": "false"},  # which the SDKs respect
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
            if isinstance(self._connection, _BoundedStream):
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


class _BoundedStream(httpcore2.AsyncNetworkStream):
    """A connection that closes when a reply has more than 16 KiB of framing.

    Headers, interim responses, and trailers are framing, and so is all of a chunk but its content,
    less 16 bytes. The reader of the reply reports the content.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = _FRAMING_BYTES

    def credit(self, content: bytes) -> None:
        """Subtract a chunk of content from the count of framing."""
        self._left += len(content) + _CHUNK_FRAMING_BYTES

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await asyncio.sleep(0)  # a buffered piece is read at once, while other tasks wait
        data = await self._stream.read(min(max_bytes, _PIECE_BYTES), timeout)
        self._left -= len(data)
        if self._left < 0:
            raise FramingError("the reply has more headers or smaller chunks than are read")
        return data

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._left = _FRAMING_BYTES
        await self._stream.write(buffer, timeout)

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    @override
    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore2.AnyIOBackend):
    """Opens bounded connections."""

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        return _BoundedStream(
            await super().connect_tcp(host, port, timeout, local_address, socket_options)
        )
