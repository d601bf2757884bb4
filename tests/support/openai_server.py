"""An OpenAI-compatible embeddings server on a local port that can be told to misbehave."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.providers.embedder import FakeEmbedder


@dataclass(frozen=True)
class Reply:
    """An answer to give instead of embeddings."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0


class OpenAIServer:
    """Answers with the fake embedder's vectors; `script` holds what it answers before.

    `heads` has the request lines and headers, in lower case. `refuse` may give another reply to a
    request; `shape` changes the list of embeddings.
    """

    def __init__(self, dimensions: int = 64) -> None:
        self.script: deque[Reply] = deque()
        self.refuse: Callable[[dict[str, Any]], Reply | None] = lambda _request: None
        self.shape: Callable[[list[dict[str, Any]]], Any] = lambda answers: {"data": answers[::-1]}
        self.requests: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.base_url = ""
        self._embedder = FakeEmbedder(dimensions)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        request = json.loads(await reader.readexactly(length))
        self.requests.append(request)
        self.heads.append(head)
        reply = self.script.popleft() if self.script else await self._embeddings(request)
        await asyncio.sleep(reply.delay)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(reply.body)),
            "connection": "close",
            **reply.headers,
        }
        lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)
        writer.close()

    async def _embeddings(self, request: dict[str, Any]) -> Reply:
        if (refusal := self.refuse(request)) is not None:
            return refusal
        vectors = await self._embedder.embed(request["input"])
        answers = [{"index": i, "embedding": (v * 3).tolist()} for i, v in enumerate(vectors)]
        # Backwards, unless a test says otherwise: the order is in the index.
        return Reply(body=json.dumps(self.shape(answers)).encode())


@asynccontextmanager
async def openai_server(dimensions: int = 64) -> AsyncIterator[OpenAIServer]:
    """Run a server on a free port."""
    scripted = OpenAIServer(dimensions)
    server = await asyncio.start_server(scripted.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scripted.base_url = f"http://127.0.0.1:{port}/v1"
    async with server:
        yield scripted
