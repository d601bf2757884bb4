"""A proxy in front of PostgreSQL that can stop forwarding, like a frozen server or network."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import parse_qs, urlsplit

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class FreezableProxy:
    """Forwards connections to the socket in a URL of the embedded PostgreSQL."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._database = parts.path
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncIterator[Self]:
        """Listen until the end of the block."""
        proxy = cls(url)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy.url = f"postgresql://memoryd@127.0.0.1:{port}{proxy._database}"
        try:
            yield proxy
        finally:
            server.close()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Keep all connections open and accept new ones, but forward nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again."""
        self._flowing.set()

    async def _accept(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # a client or the server went away, or the test is over
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _connect(self, reader: Reader, writer: Writer) -> None:
        await self._flowing.wait()
        to_server, from_server = await asyncio.open_unix_connection(self._socket)
        try:
            await asyncio.gather(self._pass(reader, from_server), self._pass(to_server, writer))
        finally:
            from_server.close()

    async def _pass(self, reader: Reader, writer: Writer) -> None:
        while received := await reader.read(65_536):
            await self._flowing.wait()
            writer.write(received)
            await writer.drain()
        writer.close()
