"""An agent's program for tests: it forwards its model's calls to memoryd."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import httpx2

JSON = dict[str, Any]

ALICE: JSON = {"variables": {"user_id": "alice"}}
HOME = ["memories", "alice"]
"""The namespace of calls with `ALICE`."""


class Agent:
    """Calls tools; each method asserts the outcome of its call."""

    def __init__(self, client: httpx2.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self.client = client
        self.headers = headers or {}

    async def send(self, name: str, arguments: Any, **binding: Any) -> httpx2.Response:
        """Call a tool for alice, unless the binding says otherwise."""
        where = ALICE if not {"namespace", "variables"} & binding.keys() else {}
        headers = {**self.headers, **binding.pop("headers", {})}
        if isinstance(kind := binding.get("kind"), str):
            binding["kind"] = {"name": kind}
        body = {"arguments": arguments, **where, **binding}
        return await self.client.post(f"/v1/tools/{name}", json=body, headers=headers)

    async def answer(self, name: str, arguments: Any, **binding: Any) -> JSON:
        response = await self.send(name, arguments, **binding)
        assert response.status_code == 200, response.text
        answer: JSON = response.json()
        assert answer.keys() == {"content", "is_error", "artifact"}
        return answer

    async def call(self, arguments: Any, *, name: str = "manage_memory", **binding: Any) -> str:
        """Return the result of a call that succeeds."""
        answer = await self.answer(name, arguments, **binding)
        assert not answer["is_error"], answer["content"]
        return str(answer["content"])

    async def mistake(self, arguments: Any, *, name: str = "manage_memory", **binding: Any) -> str:
        """Return the message about a model's mistake."""
        answer = await self.answer(name, arguments, **binding)
        assert answer["is_error"], answer["content"]
        assert answer["artifact"] is None
        return str(answer["content"])

    async def create(self, content: Any, **binding: Any) -> str:
        """Return the id of a memory that a call creates."""
        result = await self.call({"content": content}, **binding)
        assert result.startswith("created memory ")
        return result.removeprefix("created memory ")

    async def search(self, query: str, **more: Any) -> list[JSON]:
        """Return the items that the model is shown."""
        result = await self.call({"query": query, **more}, name="search_memory")
        items: list[JSON] = json.loads(result)
        return items

    async def problem(self, name: str, arguments: Any, **binding: Any) -> tuple[int, str]:
        """Return the status and the code of a call that is the application's mistake."""
        response = await self.send(name, arguments, **binding)
        assert response.headers["content-type"] == "application/problem+json", response.text
        return response.status_code, response.json()["code"]

    async def tools(self, **query: Any) -> list[JSON]:
        """Return definitions."""
        response = await self.client.get("/v1/tools", params=query, headers=self.headers)
        assert response.status_code == 200, response.text
        tools: list[JSON] = response.json()["tools"]
        return tools


AgentWith: TypeAlias = Callable[..., Awaitable[Agent]]
"""Creates agents with keys."""
