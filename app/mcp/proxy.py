"""A server on standard input and output that passes everything on to a running memoryd."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlencode, urlsplit, urlunsplit

import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from typing_extensions import override

from app.errors import OperatorError
from app.http.problems import MEDIA_TYPE as PROBLEM
from app.mcp.caller import Context
from app.mcp.server import ABOUT, Page, cursor_of, server_of
from app.mcp.stdio import serve_on_stdio

_TIMEOUT = httpx2.Timeout(30, read=150)
"""Some tools wait for a job."""


class ServerUnreachableError(OperatorError):
    """The server to pass on to cannot be used; the message says why."""


def address_of(url: str, namespace: Sequence[str]) -> str:
    """Return where a server at `url` speaks MCP, confined to a namespace; [] is all of it."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ServerUnreachableError(
            f"{url} is no address of a server; give one such as http://localhost:8080."
        )
    path = parts.path.rstrip("/").removesuffix("/mcp") + "/mcp"
    confined = urlencode({"namespace": json.dumps(list(namespace))}) if namespace else parts.query
    return urlunsplit((parts.scheme, parts.netloc, path, confined, ""))


async def forward(address: str, key: str | None) -> None:
    """Serve on standard input and output what the server at `address` serves.

    Raises ServerUnreachableError if there is none, or none for this key.
    """
    http = httpx2.AsyncClient(
        headers={"x-api-key": key} if key else {}, timeout=_TIMEOUT, transport=_Explaining()
    )
    client = Client(streamable_http_client(address, http_client=http), cache=None)
    async with http, AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(client)
        except Exception as error:
            raise ServerUnreachableError(f"{address}: {_reason(error)}") from error
        about = client.server_info or ABOUT
        await serve_on_stdio(server_of(_Forwarding(client), about, client.instructions))


class _Explaining(httpx2.AsyncHTTPTransport):
    """Answers in the words of the protocol when the server does not.

    Of other errors than JSON-RPC's the SDK's client says nothing, and a server that is away for a
    moment ends it.
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
                f"The answer is no answer of memoryd's but {response.status_code} "
                f"{response.reason_phrase}: check the address, and what is in between."
            )
        return response


def _error(message: str) -> httpx2.Response:
    error = {"code": types.INTERNAL_ERROR, "message": message}
    return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": error})


class _Forwarding:
    """Answers what a client is answered."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list_tools(self, _: Context, params: Page) -> types.ListToolsResult:
        return await self._client.list_tools(cursor=cursor_of(params))

    async def call_tool(
        self, _: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await self._client.call_tool(params.name, params.arguments)

    async def list_resources(self, _: Context, params: Page) -> types.ListResourcesResult:
        return await self._client.list_resources(cursor=cursor_of(params))

    async def list_resource_templates(
        self, _: Context, params: Page
    ) -> types.ListResourceTemplatesResult:
        return await self._client.list_resource_templates(cursor=cursor_of(params))

    async def read_resource(
        self, _: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await self._client.read_resource(params.uri)

    async def list_prompts(self, _: Context, params: Page) -> types.ListPromptsResult:
        return await self._client.list_prompts(cursor=cursor_of(params))

    async def get_prompt(
        self, _: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        return await self._client.get_prompt(params.name, params.arguments)


def _reason(error: BaseException) -> str:
    """Return what went wrong in the first place; groups only say that something did."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
