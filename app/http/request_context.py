"""Each request's place among those in progress (load shedding), its id, and its log line."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError
from app.http.problems import internal_error, shutting_down

RETRY_AFTER_SECONDS = 1

_PROCESS = secrets.token_hex(4).encode()
_NUMBERS = itertools.count(1)

_ACCEPTABLE_ID = re.compile(rb"[\w.:-]{1,128}")

_logger = structlog.get_logger("memoryd.requests")


class OverloadedError(AppError):
    """The process has as much work as it can finish in time; the request was not started."""

    status = 503
    code = "overloaded"
    title = "Overloaded"

    def __init__(self) -> None:
        super().__init__(
            "The server has more requests than it can answer in time, and did not start this one. "
            "Send it again after the seconds in Retry-After, with fewer requests at once."
        )
        self.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)


class LoadLimiter:
    """Limits the requests in progress; the limit adapts to their latency.

    Additive increase, multiplicative decrease: while requests meet the target, the limit grows up
    to the ceiling; while they take longer and the process is busy, it shrinks down to the floor.
    A request that waits for its client or for a job uses nothing, so it is not in progress.
    """

    def __init__(
        self,
        *,
        ceiling: int = 128,
        floor: int = 16,
        target_seconds: float = 0.75,
        long_waits: int = 256,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = float(ceiling)
        self.in_progress = 0
        self.waiting = 0
        self.is_clogged = False
        """Too many unsent answers are in memory; large reads are refused for now."""
        self._ceiling = ceiling
        self._floor = floor
        self._target = target_seconds
        self._long_waits = long_waits
        self._now = now
        self._next_decrease = 0.0

    def admit(self) -> "Slot | None":
        """Return a slot for a request, or None if it should be shed."""
        if self.is_clogged or self.in_progress >= int(self.limit):
            return None
        return Slot(self)

    def enter(self) -> float:
        """Count a request as in progress; return the time."""
        self.in_progress += 1
        return self._now()

    def leave(self, since: float) -> float:
        """Count a request as no longer in progress; return how long it took."""
        self.in_progress -= 1
        return self._now() - since

    def learn(self, seconds: float) -> None:
        """Adapt the limit to the time that a finished request was in progress."""
        if seconds <= self._target:
            self.limit = min(self._ceiling, self.limit + 4 / self.limit)
        elif self.in_progress * 2 >= self.limit and self._now() >= self._next_decrease:
            self.limit = max(self._floor, self.limit * 0.8)
            self._next_decrease = self._now() + self._target

    @contextmanager
    def long_wait(self) -> Iterator[None]:
        """Count a long wait; raise OverloadedError if there are too many."""
        if self.waiting >= self._long_waits:
            raise OverloadedError
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


class Slot:
    """One request's place among those in progress."""

    __slots__ = ("_limiter", "_seconds", "_since", "_suspended")

    def __init__(self, limiter: LoadLimiter) -> None:
        self._limiter = limiter
        self._seconds = 0.0
        self._suspended = 0
        self._since = limiter.enter()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Give the slot back while the request waits for something other than the server."""
        if self._suspended == 0:
            self._seconds += self._limiter.leave(self._since)
        self._suspended += 1
        try:
            yield
        finally:
            self._suspended -= 1
            if self._suspended == 0:
                self._since = self._limiter.enter()

    @contextmanager
    def long_wait(self) -> Iterator[None]:
        """Wait for a job or its events; raises OverloadedError if too many requests do."""
        with self._limiter.long_wait(), self.suspended():
            yield

    def require_room(self) -> None:
        """Raise OverloadedError if too many unsent answers are in memory."""
        if self._limiter.is_clogged:
            raise OverloadedError

    def release(self) -> None:
        """End the request."""
        self._seconds += self._limiter.leave(self._since)
        self._limiter.learn(self._seconds)


current_slot: ContextVar[Slot | None] = ContextVar("current_slot", default=None)
"""The slot of the current request; None outside a server."""


def long_wait() -> AbstractContextManager[None]:
    """Wait for a job or its events; raises OverloadedError if too many requests do."""
    slot = current_slot.get()
    return nullcontext() if slot is None else slot.long_wait()


def require_room() -> None:
    """Raise OverloadedError if too many unsent answers are in memory."""
    slot = current_slot.get()
    if slot is not None:
        slot.require_room()


class RequestContext:
    """Gives every response an `x-request-id` (the client's own if it sent one) and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        started = time.perf_counter()
        status = 500
        started_response = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started_response
            if message["type"] == "http.response.start":
                status, started_response = message["status"], True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the server shuts down and waits no longer
                if started_response:
                    raise
                await shutting_down()(scope, receive, send_with_id)
            except Exception:
                _logger.exception("request failed", method=scope["method"], path=scope["path"])
                if started_response:
                    raise
                await internal_error()(scope, receive, send_with_id)
            finally:
                log = _logger.warning if status >= 500 else _logger.debug
                log(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 2),
                )


def request_id_of(scope: Mapping[str, Any]) -> bytes:
    """Return the id of a request: the client's own if it is fit for the log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
            return bytes(value)
    return b"%s%08x" % (_PROCESS, next(_NUMBERS))
