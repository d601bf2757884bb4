"""Limits of HTTP connections, and the guard that enforces them in one server process."""

import asyncio
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.errors import AppError
from app.http.request_context import LoadLimiter

RESERVED_FILES = 256
"""Open files left for the database, model calls, and everything else."""

_TICK_SECONDS = 0.005
_WAKES_PER_TICK = 256
"""Answering this many requests with 503 takes about one tick, so requests in progress get at
least half of the time, however many clients there are."""

_logger = structlog.get_logger("memoryd.connections")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one server process."""

    head_bytes: int = 64 << 10
    """Request line and headers; a namespace and key of maximum length take half of it."""
    head_seconds: float = 10
    request_seconds: float = 60
    write_seconds: float = 60
    """Time for a client to take an answer, or one part of a stream."""
    unsent_bytes: int = 32 << 20
    """Unsent answers over all connections; beyond this, requests are shed."""
    stall_seconds: float = 0.25
    """Beyond `unsent_bytes`, connections that have not moved for this long are closed."""
    open_connections: int = 4096
    pipelined: int = 16
    linger_seconds: float = 1
    """How long to read on after a refusal, so that the client gets the refusal."""
    rest_seconds: float = 0.06
    """Pause after a 503 before the connection's next request is read, so that clients that ignore
    `Retry-After` do not slow down the requests in progress. Its answer still comes in 100 ms."""
    sweep_seconds: float = 1
    report_seconds: float = 10


def connection_limits() -> ConnectionLimits:
    """Return the limits that fit into the process's limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ConnectionLimits().open_connections
    usable = most if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, soft // 2)
    return ConnectionLimits(open_connections=min(most, usable))


def raise_open_file_limit(wanted: int = 16_384) -> None:
    """Raise the process's limit of open files; every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class Guarded(Protocol):
    """A connection as seen by its guard."""

    @property
    def unsent_bytes(self) -> int:
        """The bytes of answers that the client has not taken."""
        ...

    def check_arrival(self, seconds: float) -> None:
        """Close the connection if its client has taken longer than it may."""
        ...

    def give_up(self, error: AppError | None) -> None:
        """Stop waiting for the client; `error` is the answer to a request it has started."""
        ...

    def resume(self) -> None:
        """Read again after a rest."""
        ...

    def abort(self) -> None:
        """Drop the connection and everything unsent."""
        ...


class ConnectionGuard:
    """Watches the connections of one server process."""

    def __init__(self, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.load = LoadLimiter()
        self.arriving: dict[Guarded, float] = {}
        """Connections that wait for their client, the longest first, and since when."""
        self._stalled: dict[Guarded, tuple[float, int]] = {}
        """Connections whose client does not take its answer: since when, and the bytes then."""
        self._unsent = 0
        self._loop = loop
        self._resting: deque[tuple[float, Guarded]] = deque()
        self._refused: Counter[str] = Counter()
        self._next_report = 0.0
        self._sweeping = False

    def stall(self, connection: Guarded) -> None:
        """Note that a client takes its answer more slowly than it is written."""
        self.flow(connection)
        self._stalled[connection] = time.monotonic(), connection.unsent_bytes
        self._count(connection.unsent_bytes)
        self.watch()

    def flow(self, connection: Guarded) -> None:
        """Note that a client has taken its answer, or is gone."""
        _, size = self._stalled.pop(connection, (0, 0))
        self._count(-size)

    def _count(self, size: int) -> None:
        self._unsent += size
        was_clogged = self.load.is_clogged
        self.load.is_clogged = self._unsent > self.limits.unsent_bytes
        if self.load.is_clogged and not was_clogged:
            self._loop.call_later(self.limits.stall_seconds, self._unclog)

    def _unclog(self) -> None:
        """Drop the connections that have stalled longest until there is room for answers."""
        now = time.monotonic()
        for connection, (since, _) in list(self._stalled.items()):
            if not self.load.is_clogged:
                return
            if now - since >= self.limits.stall_seconds:
                self._drop(connection)
        if self.load.is_clogged:
            self._loop.call_later(self.limits.stall_seconds, self._unclog)

    def _drop(self, connection: Guarded) -> None:
        self.note("closed: the client does not read its answer")
        self.flow(connection)
        connection.abort()

    def watch(self) -> None:
        """Check the connections regularly while there are any."""
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(self.limits.sweep_seconds, self._sweep)

    def note(self, reason: str) -> None:
        """Count a refusal; the log has one line for many."""
        self._refused[reason] += 1
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + self.limits.report_seconds
            self._report()

    def rest(self, connection: Guarded) -> None:
        """Let a connection rest before it is read again."""
        if not self._resting:
            self._loop.call_later(_TICK_SECONDS, self._wake)
        self._resting.append((self._loop.time() + self.limits.rest_seconds, connection))

    def _wake(self) -> None:
        now = self._loop.time()
        for _ in range(_WAKES_PER_TICK):
            if not self._resting or self._resting[0][0] > now:
                break
            self._resting.popleft()[1].resume()
        if self._resting:
            self._loop.call_later(_TICK_SECONDS, self._wake)

    def make_room(self) -> bool:
        """Close the connection that has waited longest for its client; False if none waits."""
        for oldest in self.arriving:
            self.note("closed to make room for another connection")
            oldest.give_up(None)
            return True
        return False

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection, since in list(self.arriving.items()):
            connection.check_arrival(now - since)
        for connection, (since, _) in list(self._stalled.items()):
            if now - since > self.limits.write_seconds:
                self._drop(connection)
        if self._refused and now >= self._next_report:
            self._next_report = now + self.limits.report_seconds
            self._report()
        self._sweeping = False
        if self.arriving or self._stalled or self._refused:
            self.watch()

    def _report(self) -> None:
        _logger.warning(
            "requests or connections refused",
            **dict(self._refused),
            in_progress=self.load.in_progress,
            limit=int(self.load.limit),
            waiting_for_clients=len(self.arriving),
        )
        self._refused.clear()
