"""MCP over standard input and output, for clients that start memoryd themselves."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from threading import Thread
from typing import Any, cast

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that end it; the first is that of a terminal which is closed."""

_CHUNK_BYTES = 1 << 16


async def serve_on_stdio(server: Server[Any]) -> None:
    """Serve until the client closes its end or is gone, or a signal comes."""
    asked = _Input()
    for number in ENDING:
        # As if the client had closed its end: the SDK ends the calls that run, with an error.
        asyncio.get_running_loop().add_signal_handler(number, asked.end)
    Thread(target=asked.read, args=(asyncio.get_running_loop(),), daemon=True).start()
    try:
        # The SDK's own reader sits in a thread until another line comes: nothing could end it.
        async with stdio_server(stdin=cast(Any, asked.lines())) as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())
    except* BrokenPipeError:
        pass  # nobody is there to be answered


class _Input:
    """The lines of standard input, whatever it is: a pipe, a terminal, a file."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=sys.maxsize)
        self._ended = False

    def read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass on what comes, in a thread of its own."""
        with suppress(RuntimeError, OSError):  # the loop has ended, or the terminal
            while data := os.read(0, _CHUNK_BYTES):
                loop.call_soon_threadsafe(self._take, data)
            loop.call_soon_threadsafe(self.end)

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines until the end."""
        async for line in self._reader:
            yield line.decode(errors="replace")

    def end(self) -> None:
        """Take no more."""
        self._ended = True
        self._reader.feed_eof()

    def _take(self, data: bytes) -> None:
        if not self._ended:
            self._reader.feed_data(data)
