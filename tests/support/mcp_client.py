"""The official MCP client, of the application in this process or of a `memoryd mcp`."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from mcp import Client, StdioServerParameters, stdio_client, types
from mcp.client.streamable_http import streamable_http_client
from typing_extensions import override

from tests.support.server import MEMORYD, clean_environment

HERE = "http://localhost/mcp"
"""Where a server without keys may be called."""


class Through(httpx2.AsyncBaseTransport):
    """Sends requests on through another client, with headers of its own."""

    def __init__(self, client: httpx2.AsyncClient, headers: Mapping[str, str]) -> None:
        self._client = client
        self._headers = headers

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers.update(self._headers)
        return await self._client.send(request, stream=True)


@asynccontextmanager
async def connected(
    client: httpx2.AsyncClient,
    headers: Mapping[str, str] | None = None,
    *,
    namespace: list[str] | None = None,
    mode: str = "auto",
) -> AsyncIterator[Client]:
    """Yield an MCP client of the application behind an HTTP client."""
    query = "?" + urlencode({"namespace": json.dumps(namespace)}) if namespace else ""
    async with (
        httpx2.AsyncClient(transport=Through(client, headers or {})) as http,
        Client(streamable_http_client(HERE + query, http_client=http), mode=mode) as opened,
    ):
        yield opened


@asynccontextmanager
async def started(
    *arguments: str, environment: Mapping[str, str], cwd: Path, mode: str = "auto"
) -> AsyncIterator[Client]:
    """Yield a client of a `memoryd mcp` of its own; its log is in `cwd`."""
    parameters = StdioServerParameters(
        command=str(MEMORYD),
        args=["mcp", *arguments],
        env={**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed", **environment},
        cwd=cwd,
    )
    with (cwd / "log").open("a") as log:
        async with Client(stdio_client(parameters, errlog=log), mode=mode) as opened:
            yield opened


@dataclass
class Agent:
    """What a model does with the tools; every call asserts whether it succeeds."""

    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, text_of(result)
        content: dict[str, Any] = result.structured_content
        assert json.loads(text_of(result)) == content
        return content

    async def refused(self, tool: str, **arguments: Any) -> str:
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        assert result.structured_content is None
        return text_of(result)

    async def remember(self, text: str, **more: Any) -> str:
        return str((await self.call("remember", text=text, **more))["id"])

    async def search(self, **asked: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("search_memories", **asked))["memories"]
        return found

    async def texts(self, **asked: Any) -> list[str]:
        return [memory["value"]["content"] for memory in await self.search(**asked)]


def text_of(result: types.CallToolResult) -> str:
    """Return the text of a result, which is all that it holds."""
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text
