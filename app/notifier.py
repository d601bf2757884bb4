"""News between processes: one connection that listens, fanned out to who waits in this process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self

import asyncpg
import structlog

from app.db import asyncpg_url

WORK = "memoryd_work"
"""Channel of the news that a job can be started."""

CHANGED = "memoryd_changed"
"""Channel of the ids of jobs that reported something or changed their state."""

CANCEL = "memoryd_cancel"
"""Channel of the ids of running jobs that are to stop."""

CHANNELS = (WORK, CHANGED, CANCEL)

RECONNECT_SECONDS = 1.0

_logger = structlog.get_logger("memoryd.notifier")


class Notifier:
    """Wakes those who wait for a channel's news.

    News may be lost while the connection is; everybody is woken when it is back, and whoever waits
    also looks at the database every now and then.
    """

    def __init__(self, url: str, channels: tuple[str, ...]) -> None:
        self._url = asyncpg_url(url)
        self._channels = channels
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, channels: tuple[str, ...]) -> AsyncIterator[Self]:
        """Listen until the end of the block."""
        notifier = cls(url, channels)
        listening = asyncio.create_task(notifier._listen_always())
        try:
            yield notifier
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

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
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it is, listening goes on
                _logger.warning("listening interrupted", reason=repr(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._url, server_settings={"application_name": "memoryd listening"}
        )
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel in self._channels:
                await connection.add_listener(channel, self._tell)
            self._wake_all()
            await lost.wait()
        finally:
            connection.terminate()

    def _tell(self, _connection: Any, _process: int, channel: str, payload: Any) -> None:
        for news in self._waiting.get((channel, str(payload)), ()):
            news.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for news in waiting:
                news.set()


async def wait_for(news: asyncio.Event, seconds: float) -> None:
    """Wait until there is news, at most so long, and be ready for the next."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await news.wait()
    news.clear()
