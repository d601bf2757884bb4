"""MCP over standard input and output, for clients that start memoryd themselves.

The SDK reads standard input in a thread that nothing can interrupt until another line comes, so
neither a signal nor cancellation ends it (https://github.com/modelcontextprotocol/python-sdk/issues/3551,
still open with mcp 2.3.0). Its reader is replaced here; delete `_Input` when that is fixed.
"""

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
"""Signals that end the server; the first is sent when a terminal is closed."""

_CHUNK_BYTES = 1 << 16


async def serve_on_stdio(server: Server[Any]) -> None:
    """Serve until the client closes its end or disappears, or a signal arrives."""
    requests = _Input()
    for number in ENDING:
        # As if the client had closed its end: the SDK ends running calls with an error.
        asyncio.get_running_loop().add_signal_handler(number, requests.end)
    Thread(target=requests.read, args=(asyncio.get_running_loop(),), daemon=True).start()
    try:
        async with stdio_server(stdin=cast(Any, requests.lines())) as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())
    except* BrokenPipeError:
        pass  # the client has disappeared


class _Input:
    """The lines of standard input, which may be a pipe, a terminal, or a file."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=sys.maxsize)
        self._ended = False

    def read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forward the input; this runs in a thread of its own."""
        with suppress(RuntimeError, OSError):  # the loop has ended, or the terminal
            while data := os.read(0, _CHUNK_BYTES):
                loop.call_soon_threadsafe(self._feed, data)
            loop.call_soon_threadsafe(self.end)

    async def lines(self) -> AsyncIterator[str]:
        """Yield the lines until the end."""
        async for line in self._reader:
            yield line.decode(errors="replace")

    def end(self) -> None:
        """Accept no more input."""
        self._ended = True
        self._reader.feed_eof()

    def _feed(self, data: bytes) -> None:
        if not self._ended:
            self._reader.feed_data(data)
