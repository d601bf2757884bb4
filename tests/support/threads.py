"""Threads in few words; every call asserts the status it expects."""

from typing import Any
from urllib.parse import quote

import httpx2

JSON = dict[str, Any]

VERBATIM: JSON = {"strategy": "verbatim", "namespace": ["users", "{user_id}"]}
"""A manager that needs no model."""


def says(text: str, message_id: str | None = None, role: str = "user") -> JSON:
    message = {"role": role, "content": text}
    return message if message_id is None else {**message, "id": message_id}


class Threads:
    """The routes of threads."""

    def __init__(self, client: httpx2.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self.client = client
        self.headers = headers or {}

    async def append(
        self, thread_id: str, *messages: JSON | str, status: int = 202, **more: Any
    ) -> JSON:
        sent = [says(message) if isinstance(message, str) else message for message in messages]
        body = {"messages": sent, **more}
        return await self.call("POST", thread_id, "/messages", status=status, json=body)

    async def form(self, thread_id: str, *messages: JSON | str, **more: Any) -> JSON:
        """Append with a manager, for the user alice."""
        chosen = {"manager_config": VERBATIM, "variables": {"user_id": "alice"}, **more}
        return await self.append(thread_id, *messages, **chosen)

    async def get(self, thread_id: str, *, status: int = 200) -> JSON:
        return await self.call("GET", thread_id, status=status)

    async def messages(self, thread_id: str, *, status: int = 200, **query: Any) -> JSON:
        return await self.call("GET", thread_id, "/messages", status=status, params=query)

    async def texts(self, thread_id: str) -> list[str]:
        """Return what was said, in order, over all pages."""
        texts: list[str] = []
        cursor: int | None = 0
        while cursor is not None:
            page = await self.messages(thread_id, cursor=cursor, limit=7)
            texts += [message["message"]["content"] for message in page["messages"]]
            cursor = page["next_cursor"]
        return texts

    async def flush(self, thread_id: str, *, status: int = 202, **request: Any) -> JSON:
        return await self.call("POST", thread_id, "/flush", status=status, **request)

    async def delete(self, thread_id: str, *, status: int = 204) -> JSON:
        return await self.call("DELETE", thread_id, status=status)

    async def call(
        self, method: str, thread_id: str, below: str = "", *, status: int, **request: Any
    ) -> JSON:
        headers = {**self.headers, **request.pop("headers", {})}
        # Clients take "." and ".." for steps through the path.
        quoted = quote(thread_id, safe="").replace(".", "%2E")
        path = f"/v1/threads/{quoted}{below}"
        response = await self.client.request(method, path, headers=headers, **request)
        assert response.status_code == status, response.text
        answer: JSON = response.json() if response.content else {}
        return answer
