"""Connections to providers that stop at replies with far more framing than content."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
from typing_extensions import override

_PIECE_BYTES = 4 << 10
"""Bytes parsed between two turns of the event loop: some 700 chunks, or 300 interim answers."""

_FRAMING_BYTES = 16 << 10
_CHUNK_FRAMING_BYTES = 16


class FramingError(Exception):
    """The server sends endless headers, interim answers, or tiny chunks."""


class BoundedStream(httpcore2.AsyncNetworkStream):
    """A connection that closes when a reply has more than 16 KiB of framing.

    Headers, interim answers, and trailers are framing, and so is all of a chunk but its content,
    less 16 bytes. Reports of content come from the reader of the reply.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = _FRAMING_BYTES

    def credit(self, content: bytes) -> None:
        """Take a chunk of content off the count of framing."""
        self._left += len(content) + _CHUNK_FRAMING_BYTES

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await asyncio.sleep(0)  # a buffered piece is read at once, and others have waited
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
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    @override
    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class BoundedBackend(httpcore2.AnyIOBackend):
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
        return BoundedStream(
            await super().connect_tcp(host, port, timeout, local_address, socket_options)
        )
