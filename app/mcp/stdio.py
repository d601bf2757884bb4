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

_CHUNK_BYTES = 1 << 16


async def serve_on_stdio(server: Server[Any]) -> None:
    """Serve until the client closes its end, or SIGINT or SIGTERM comes."""
    serving = asyncio.create_task(_serve(server))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


async def _serve(server: Server[Any]) -> None:
    # The SDK's own reader sits in a thread until another line comes: it could not be cancelled.
    async with stdio_server(stdin=cast(Any, _lines())) as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of standard input, whatever it is: a pipe, a terminal, a file."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=sys.maxsize)

    def read() -> None:
        with suppress(RuntimeError, OSError):  # the loop has ended, or the terminal
            while data := os.read(0, _CHUNK_BYTES):
                loop.call_soon_threadsafe(reader.feed_data, data)
            loop.call_soon_threadsafe(reader.feed_eof)

    Thread(target=read, daemon=True).start()
    async for line in reader:
        yield line.decode(errors="replace")
