"""News between processes: one connection listens for all waiting tasks of this process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, Self

import asyncpg
import structlog

from app.background import background
from app.clock import Reading, running_seconds
from app.db.database import connect

WORK = "memoryd_work"
"""Channel of the news that a job can be started."""

CHANGED = "memoryd_changed"
"""Channel of the ids of jobs that reported something or changed their state."""

CANCEL = "memoryd_cancel"
"""Channel of the ids of running jobs that are to stop."""

CHANNELS = (WORK, CHANGED, CANCEL)

RECONNECT_SECONDS = 1.0

PULSE_SECONDS = 2.0
"""Pause between probes on the listening connection, which tell a quiet server from a dead one."""

SILENCE_SECONDS = 4.0
"""A server that has not answered for this long is frozen or out of reach."""

_LAST_CHANCE_SECONDS = 0.5
"""Extra wait: a process that was itself suspended sees the timeout before the answers."""

_ASK_TIME = "SELECT extract(epoch FROM clock_timestamp())::float8"

_logger = structlog.get_logger("memoryd.notifier")


class Pulse(Protocol):
    """Is notified every few seconds whether the database answers."""

    def answered(self, reading: Reading) -> None:
        """Note that the database answered, and its time."""
        ...

    async def silent(self) -> None:
        """Note that the database has stopped answering."""
        ...


class Notifier:
    """Wakes the tasks that wait for a channel's news.

    News may be lost while the connection is; every task is woken when it is back, and each
    also looks at the database every now and then.
    """

    def __init__(self, url: str, channels: tuple[str, ...], pulse: Pulse) -> None:
        self._url = url
        self._channels = channels
        self._pulse = pulse
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, channels: tuple[str, ...], pulse: Pulse) -> AsyncIterator[Self]:
        """Listen until the end of the block."""
        notifier = cls(url, channels, pulse)
        async with background(notifier._listen_always()):
            yield notifier

    @contextmanager
    def subscribed(self, channel: str, payload: str = "") -> Iterator[asyncio.Event]:
        """Yield an event that is set by news of this payload; who waits for it clears it."""
        news = asyncio.Event()
        waiting = self._waiting[channel, payload]
        waiting.add(news)
        try:
            yield news
        finally:
            waiting.discard(news)
            if not waiting:
                self._waiting.pop((channel, payload), None)

    async def _listen_always(self) -> None:
        reported = ""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it is, listening goes on
                if type(error).__name__ != reported:  # once, not every second
                    _logger.warning("listening interrupted", reason=repr(error))
                reported = type(error).__name__
            else:
                reported = ""
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await connect(self._url, "memoryd listening")
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                for channel in self._channels:
                    await connection.add_listener(channel, self._tell)
            self._wake_all()
            while not connection.is_closed():
                self._pulse.answered(await self._reading(connection))
                await wait_for(lost, PULSE_SECONDS)
        finally:
            connection.terminate()

    async def _reading(self, connection: asyncpg.Connection) -> Reading:
        """Ask for the time; without an answer, report that and raise TimeoutError."""
        asking = asyncio.create_task(read_clock(connection))
        try:
            for seconds in (SILENCE_SECONDS, _LAST_CHANCE_SECONDS):
                done, _ = await asyncio.wait({asking}, timeout=seconds)
                if done:
                    return asking.result()
        finally:
            asking.cancel()
        await self._pulse.silent()
        raise TimeoutError

    def _tell(self, _connection: Any, _process: int, channel: str, payload: Any) -> None:
        for news in self._waiting.get((channel, str(payload)), ()):
            news.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for news in waiting:
                news.set()


async def read_clock(connection: Any) -> Reading:
    """Ask the database for its time."""
    sent = running_seconds()
    database_seconds = await connection.fetchval(_ASK_TIME)
    return Reading(database_seconds, sent, running_seconds())


async def wait_for(news: asyncio.Event, seconds: float) -> None:
    """Wait until there is news, or for `seconds`, and be ready for the next."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await news.wait()
    news.clear()
