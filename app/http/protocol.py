"""HTTP connections: limits on headers, slow clients, and open connections, and load shedding.

A subclass of uvicorn's protocol; docs/decisions/0014-connections.md has reasons and costs.
"""

import asyncio
import re
import time
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from app.errors import AppError
from app.http.connection_guard import (
    RESERVED_FILES,
    ConnectionGuard,
    ConnectionLimits,
    connection_limits,
)
from app.http.messages import CHUNK_BYTES
from app.http.refusals import (
    LEAST_CHUNK_BYTES,
    HeadTooLargeError,
    InvalidHttpError,
    Refusal,
    RequestTimeoutError,
    TinyChunksError,
)
from app.http.request_context import OverloadedError, Slot, current_slot

UNSHED_PATHS = frozenset({"/healthz", "/v1/ok"})
"""Probes of the process: they are cheap, and must tell a busy process from a dead one."""

FREE_CHUNKS = 512

_OVERLOADED = Refusal(OverloadedError())

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def _without_upgrade(data: bytes) -> bytes:
    """Return the beginning of a request with its Upgrade header renamed.

    The parser would take what follows that header block for another protocol and drop the body.
    Java's HttpClient asks for HTTP/2 in every first request.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nignored:", head) + end + body


_guards: WeakKeyDictionary[ServerState, ConnectionGuard] = WeakKeyDictionary()


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits; one object for each connection."""

    limits: ClassVar[ConnectionLimits | None] = None
    """None: the process's own; tests set smaller ones."""

    def __init__(
        self,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        guard = _guards.get(server_state)
        if guard is None:
            guard = ConnectionGuard(self.limits or connection_limits(), self.loop)
            _guards[server_state] = guard
        self._guard = guard
        self._head_bytes = 0
        self._uncounted_bytes = 0
        self._body_bytes = 0
        self._chunks = self._chunk_bytes = 0
        self._in_message = False
        self._refused = False
        self._running: RequestResponseCycle | None = None
        self.writing_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """The memory held by an answer that the client has not taken.

        While any part of one write is unsent, all of it stays in memory. A chunk is free, or
        many clients of documents that take no key could have all others shed.
        """
        held = max(self.transport.get_write_buffer_size(), self.writing_bytes)
        return max(0, held - 2 * CHUNK_BYTES)

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._guard.limits.open_connections
        if len(self.connections) > most and not self._guard.make_room():
            self._guard.note("shed: too many connections")
            if len(self.connections) > most + RESERVED_FILES // 2:
                transport.abort()
            else:
                self._refuse(OverloadedError())
        else:
            self._await_client()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.arriving.pop(self, None)
        self._guard.flow(self)
        self._disconnect()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        body_bytes = self._body_bytes
        if not self._has_head:
            data = _without_upgrade(data)
        self._uncounted_bytes = len(data)
        try:
            self.parser.feed_data(data)
            if self._in_message and self._body_bytes == body_bytes:
                self._count_head(self._uncounted_bytes)  # an unfinished header, or a trailer
        except HeadTooLargeError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, AppError) else InvalidHttpError())
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as if it asked for no other protocol

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._head_bytes = self._chunks = self._chunk_bytes = 0
        if len(self.pipeline) >= self._guard.limits.pipelined:
            raise InvalidHttpError
        self._await_client()

    @override
    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self.url += url

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    @override
    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._chunks += 1
        self._chunk_bytes += len(body)
        if self._chunks > FREE_CHUNKS + self._chunk_bytes // LEAST_CHUNK_BYTES:
            self._guard.note("refused: a body of tiny chunks")
            raise TinyChunksError
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._in_message = False
        self._guard.arriving.pop(self, None)
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_client()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._in_message:
            self._await_client()

    @override
    def pause_writing(self) -> None:
        self._guard.stall(self)
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        self._guard.flow(self)
        super().resume_writing()

    def abort(self) -> None:
        """Drop the connection and everything unsent."""
        self.transport.abort()

    def check_arrival(self, seconds: float) -> None:
        """Close the connection if its client has taken longer than it may."""
        limits = self._guard.limits
        if self.flow.read_paused:
            return  # it is the server that does not read
        if self._has_head and seconds > limits.request_seconds:
            self._guard.note("closed: the request did not arrive in time")
            self.give_up(RequestTimeoutError("request", limits.request_seconds))
        elif not self._has_head and seconds > limits.head_seconds:
            self._guard.note("closed: no request in time")
            begun = self._in_message
            self.give_up(RequestTimeoutError("head", limits.head_seconds) if begun else None)

    def give_up(self, error: AppError | None) -> None:
        """Stop waiting for the client; `error` is the answer to a request it has started."""
        if error is None:
            self._guard.arriving.pop(self, None)
            self.transport.close()
        else:
            self._refuse(error)

    def _await_client(self) -> None:
        """Start timing the client."""
        self._guard.arriving.pop(self, None)  # to become the last one
        self._guard.arriving[self] = time.monotonic()
        self._guard.watch()

    def _count_head(self, size: int) -> None:
        # A header is reported once it is complete; its earlier parts are already counted.
        size = min(size, self._uncounted_bytes)
        self._uncounted_bytes -= size
        self._head_bytes += size
        if self._head_bytes > self._guard.limits.head_bytes:
            self._guard.note("refused: headers too large")
            raise HeadTooLargeError(self._guard.limits.head_bytes)

    def _refuse(self, error: AppError) -> None:
        """Close, after an error response unless the client would take it for another answer."""
        self._guard.arriving.pop(self, None)
        if self.transport.is_closing():
            return
        if self._can_answer:
            self.transport.write(Refusal(error).encode(None, keep_alive=False))
        self._disconnect()
        self._close_gently()

    def _disconnect(self) -> None:
        """Mark the request in progress, and the one that arrives, as disconnected."""
        for cycle in (self._running, cast(RequestResponseCycle | None, self.cycle)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    @property
    def _has_head(self) -> bool:
        return self._in_message and "method" in self.scope

    @property
    def _can_answer(self) -> bool:
        """True if the client would take the next bytes for the answer to the refused request."""
        if cast(RequestResponseCycle | None, self.cycle) is None:
            return True
        if self._has_head:
            return not self.pipeline and not self.cycle.response_started
        return self.cycle.response_complete  # else it is an earlier request's, still in progress

    def _close_gently(self) -> None:
        """Close after reading for a moment; a reset could destroy the answer on its way."""
        self._refused = True
        self.pipeline.clear()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(self._guard.limits.linger_seconds, self.transport.close)

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.scope["path"] in UNSHED_PATHS:
            super()._start_asgi_task(cycle, app)
        elif self.flow.write_paused:
            super()._start_asgi_task(cycle, self._after_earlier_answers(cycle, app))
        elif admitted := self._admit(cycle, app):
            super()._start_asgi_task(cycle, cast(Any, admitted))

    def _after_earlier_answers(self, cycle: RequestResponseCycle, app: ASGIApp) -> Any:
        """Return the application as it begins once the client has taken what it was answered."""

        async def begin(scope: Scope, receive: Receive, send: Send) -> None:
            await self.flow.drain()
            if self.transport.is_closing():
                cycle.disconnected = True
            elif admitted := self._admit(cycle, app):
                await admitted(scope, receive, send)

        return begin

    def _admit(self, cycle: RequestResponseCycle, app: ASGIApp) -> "_Admitted | None":
        """Return the application with a slot for a request, or shed the request."""
        slot = self._guard.load.admit()
        if slot is None:
            self._shed(cycle)
            return None
        return _Admitted(app, self, cycle, slot)

    def _shed(self, cycle: RequestResponseCycle) -> None:
        """Answer 503 at once; the rest of the body is read and dropped."""
        self._guard.note("shed")
        cycle.response_started = cycle.response_complete = True
        self.transport.write(_OVERLOADED.encode(cycle.scope, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self._close_gently()
        self.on_response_complete()
        if cycle.keep_alive:
            self.flow.pause_reading()
            self._guard.rest(self)

    def resume(self) -> None:
        """Read again after a rest."""
        if not self.transport.is_closing():
            self.flow.resume_reading()


class _Admitted:
    """The application, called for one admitted request."""

    __slots__ = ("_app", "_cycle", "_protocol", "_slot")

    def __init__(
        self, app: ASGIApp, protocol: BoundedProtocol, cycle: RequestResponseCycle, slot: Slot
    ) -> None:
        self._app = app
        self._protocol = protocol
        self._cycle = cycle
        self._slot = slot

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        occupied = current_slot.set(self._slot)
        try:
            await self._app(scope, self._receive, self._send)
        finally:
            current_slot.reset(occupied)
            self._slot.release()

    async def _send(self, message: Message) -> None:
        if self._protocol.flow.write_paused:
            with self._slot.suspended():
                await self._protocol.flow.drain()
        self._protocol.writing_bytes = len(message.get("body", b""))
        await self._cycle.send(cast(Any, message))

    async def _receive(self) -> Message:
        cycle = self._cycle
        if not cycle.more_body or cycle.message_event.is_set():
            return await cycle.receive()  # type: ignore[return-value]
        with self._slot.suspended():
            return await cycle.receive()  # type: ignore[return-value]
