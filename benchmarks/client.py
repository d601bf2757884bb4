"""A keep-alive HTTP/1.1 client with little overhead: it shares two cores with the server."""

import asyncio
from collections import deque
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
from typing_extensions import override

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"


class UnexpectedAnswerError(Exception):
    """The server answered with an error, or with something this client cannot read."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time; bodies must announce their length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(HEAD_END)
        if head_end < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(self._received[:head_end])
        status = int(head[9:12])
        start = head_end + len(HEAD_END)
        end = start + _content_length(head, status)
        if len(self._received) >= end:
            body = bytes(self._received[start:end])
            del self._received[:end]
            self._answer.set_result((status, body))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send one request and wait for its status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    @property
    def usable(self) -> bool:
        """Whether the connection is still open."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes, status: int) -> int:
    if status in (204, 304):
        return 0
    lower = head.lower()
    at = lower.find(LENGTH)
    if at < 0:
        raise UnexpectedAnswerError(f"an answer without content-length: {head[:200]!r}")
    return int(lower[at + len(LENGTH) :].split(b"\r\n", 1)[0])


class HttpClient:
    """Speaks JSON to one server over as many connections as there are callers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._idle: deque[_Connection] = deque()

    async def call(self, method: str, path: str, body: object = None, headers: str = "") -> Any:
        """Send `body` as JSON; return the answer's JSON, or None if it has none.

        `headers` are raw lines, each with its line end.
        """
        payload = b"" if body is None else orjson.dumps(body)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{headers}"
            f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        connection = await self._connection()
        status, answer = await connection.send(head.encode() + payload)
        self._idle.append(connection)
        if status >= 400:
            raise UnexpectedAnswerError(f"{method} {path} was answered {status}: {answer[:500]!r}")
        return orjson.loads(answer) if answer else None

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection

    def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().close()
