"""MCP over standard input and output, for clients that start memoryd themselves.

It serves memories itself, or forwards requests to a running memoryd.

The SDK reads standard input in a thread that nothing can interrupt until another line comes, so
neither a signal nor cancellation ends it (https://github.com/modelcontextprotocol/python-sdk/issues/3551,
still open with mcp 2.3.0). Its reader is replaced here; delete `_Input` when that is fixed.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from threading import Thread
from typing import Any, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from typing_extensions import override

from app.errors import OperatorError
from app.http.problems import MEDIA_TYPE as PROBLEM
from app.mcp.server import ABOUT, AnyServer, cursor_of, no_headers

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that end the server; the first is sent when a terminal is closed."""

_CHUNK_BYTES = 1 << 16

_TIMEOUT = httpx2.Timeout(30, read=150)
"""Some tools wait for a job."""


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


class ServerUnreachableError(OperatorError):
    """The server to forward to cannot be used; the message says why."""


def address_of(url: str, namespace: Sequence[str]) -> str:
    """Return the MCP address of the server at `url`, confined to a namespace unless it is []."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ServerUnreachableError(
            f"{url} is not the address of a server; give one such as http://localhost:8080."
        )
    path = parts.path.rstrip("/").removesuffix("/mcp") + "/mcp"
    confined = urlencode({"namespace": json.dumps(list(namespace))}) if namespace else parts.query
    return urlunsplit((parts.scheme, parts.netloc, path, confined, ""))


async def forward(address: str, key: str | None) -> None:
    """Forward requests on standard input to the server at `address`.

    Raises ServerUnreachableError if no server answers there or it refuses the key.
    """
    http = httpx2.AsyncClient(
        headers={"x-api-key": key} if key else {}, timeout=_TIMEOUT, transport=_ErrorTransport()
    )
    client = Client(streamable_http_client(address, http_client=http), cache=None)
    async with http, AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            raise ServerUnreachableError(f"{address}: {_reason(error)}") from error
        await serve_on_stdio(_forwarding_server(client))


class _ErrorTransport(httpx2.AsyncHTTPTransport):
    """Turns HTTP errors into JSON-RPC errors.

    The SDK's client does not report other errors, and ends if the server is unavailable for a
    moment.
    """

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await super().handle_async_request(request)
            body = await response.aread()  # memoryd streams nothing here
        except httpx2.TransportError as error:
            return _error(f"The server does not answer ({_reason(error)}).")
        kind = response.headers.get("content-type", "")
        if kind == PROBLEM:
            return _error(json.loads(body)["detail"])
        if response.is_error and not kind.startswith("application/json"):
            return _error(
                f"The response is not from memoryd: {response.status_code} "
                f"{response.reason_phrase}. Check the address, and any proxies."
            )
        return response


def _error(message: str) -> httpx2.Response:
    error = {"code": types.INTERNAL_ERROR, "message": message}
    return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": error})


def _forwarding_server(client: Client) -> AnyServer:
    """Return a server that passes every request on to the client's server."""
    about = client.server_info or ABOUT
    return Server(
        about.name,
        version=about.version,
        title=about.title,
        instructions=client.instructions,
        get_tool_input_schema=no_headers,
        on_list_tools=lambda _, page: client.list_tools(cursor=cursor_of(page)),
        on_call_tool=lambda _, call: client.call_tool(call.name, call.arguments),
        on_list_resources=lambda _, page: client.list_resources(cursor=cursor_of(page)),
        on_list_resource_templates=lambda _, page: client.list_resource_templates(
            cursor=cursor_of(page)
        ),
        on_read_resource=lambda _, resource: client.read_resource(resource.uri),
        on_list_prompts=lambda _, page: client.list_prompts(cursor=cursor_of(page)),
        on_get_prompt=lambda _, prompt: client.get_prompt(prompt.name, prompt.arguments),
    )


def _reason(error: BaseException) -> str:
    """Return the message of the original exception in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
