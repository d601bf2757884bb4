"""The ways in which an agent of LangGraph gets at its memory in memoryd."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import uuid4

import httpx2
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph_sdk import get_client
from mcp import Client


@dataclass(frozen=True)
class Call:
    """A tool, and its argument that takes the text."""

    tool: str
    argument: str


@dataclass(frozen=True)
class Way:
    """What an agent is given, and how its model uses it."""

    tools: Sequence[BaseTool]
    remember: Call
    look_up: Call


Opening: TypeAlias = Callable[[str, str], AbstractAsyncContextManager[Way]]
"""Opens a way to the memories of a user at a server's address."""


@asynccontextmanager
async def by_sdk(url: str, user: str) -> AsyncIterator[Way]:
    """LangGraph's own SDK, in tools of one's own."""
    async with get_client(url=f"{url}/v1", api_key=None) as client:

        @tool
        async def remember(text: str) -> str:
            """Keep something for later conversations."""
            value = {"content": text}
            await client.store.put_item(["memories", user], key=str(uuid4()), value=value)
            return "Done."

        @tool
        async def look_up(question: str) -> str:
            """Look something up in what was kept."""
            found = await client.store.search_items(["memories", user], query=question)
            return json.dumps([item["value"] for item in found["items"]])

        yield Way([remember, look_up], Call("remember", "text"), Call("look_up", "question"))


@asynccontextmanager
async def by_mcp(url: str, user: str) -> AsyncIterator[Way]:
    """MCP over HTTP, on a connection that is confined to the user's namespace."""
    async with Client(f"{url}/mcp?namespace=memories.{user}") as client:

        async def call(name: str, arguments: dict[str, Any]) -> str:
            result = await client.call_tool(name, arguments)
            return "\n".join(part.text for part in result.content if part.type == "text")

        listed = (await client.list_tools()).tools
        tools = [_tool(t.name, t.description or "", t.input_schema, call) for t in listed]
        yield Way(tools, Call("remember", "text"), Call("search_memories", "query"))


@asynccontextmanager
async def by_tools_endpoint(url: str, user: str) -> AsyncIterator[Way]:
    """memoryd's tools for agents, as OpenAI's API takes them."""
    async with httpx2.AsyncClient(base_url=f"{url}/v1") as client:

        async def call(name: str, arguments: dict[str, Any]) -> str:
            bound = {"variables": {"user_id": user}}
            response = await client.post(f"/tools/{name}", json={"arguments": arguments, **bound})
            assert response.status_code == 200, response.text
            content: str = response.json()["content"]
            return content

        response = await client.get("/tools", params={"format": "openai"})
        functions = [one["function"] for one in response.json()["tools"]]
        tools = [_tool(f["name"], f["description"], f["parameters"], call) for f in functions]
        yield Way(tools, Call("manage_memory", "content"), Call("search_memory", "query"))


WAYS: Mapping[str, Opening] = {
    "sdk": by_sdk,
    "mcp": by_mcp,
    "tools": by_tools_endpoint,
}


def _tool(
    name: str, description: str, schema: Mapping[str, Any], call: Callable[[str, Any], Any]
) -> BaseTool:
    """Return a tool of LangChain's that is called by its name."""

    async def called(**arguments: Any) -> Any:
        return await call(name, arguments)

    return StructuredTool(
        name=name, description=description, args_schema=dict(schema), coroutine=called
    )
