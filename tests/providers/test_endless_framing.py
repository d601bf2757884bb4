"""A server that sends endless framing ends its call at once, and holds up nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from app.providers.anthropic import AnthropicLLM
from app.providers.errors import BadRequestError, UnavailableError
from app.providers.llm import Message, Request
from app.providers.openai_chat import ChatLLM
from app.providers.openai_embedder import OpenAIEmbedder
from app.providers.provider import Provider

pytestmark = pytest.mark.slow  # floods

HELLO = Request("Be brief.", (Message("user", "Hello"),))
LONGEST_GAP = 0.2
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
FLOODS = {
    "tiny chunks": (CHUNKED, b"1\r\n \r\n"),
    "tiny chunks of an error": (CHUNKED.replace(b"200 OK", b"500 No"), b"1\r\n \r\n"),
    "long chunk headers": (CHUNKED, b"1;" + b"x" * 3_000 + b"\r\n \r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"a:\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "short interim answers": (b"", b"HTTP/1.1 100\n\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a:\r\n"),
}


@dataclass
class Flood:
    """A server that sends `start`, then `piece` for as long as the client reads."""

    start: bytes
    piece: bytes
    url: str = ""
    requests: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.opened.set()
        writer.write(self.start)
        block = self.piece * (65_536 // len(self.piece))
        with suppress(ConnectionError):
            while True:
                writer.write(block)
                await writer.drain()
        self.closed.set()
        writer.close()


@asynccontextmanager
async def flood(start: bytes, piece: bytes) -> AsyncIterator[Flood]:
    server = Flood(start, piece)
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as running:
        server.url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        yield server


@asynccontextmanager
async def ticker() -> AsyncIterator[list[float]]:
    """Collect the seconds of CPU that each turn of the event loop takes."""
    gaps: list[float] = []

    async def tick() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            gaps.append(now - before)
            before = now

    task = asyncio.create_task(tick())
    try:
        yield gaps
    finally:
        task.cancel()


Client = AnthropicLLM | ChatLLM | OpenAIEmbedder
CLIENTS: dict[str, Callable[[str], Client]] = {
    "anthropic": lambda url: AnthropicLLM("m", Provider("anthropic", "anthropic", base_url=url)),
    "chat": lambda url: ChatLLM("m", Provider(base_url=url)),
    "embedder": lambda url: OpenAIEmbedder("m", Provider(base_url=url)),
}


async def ask(client: Client) -> object:
    if isinstance(client, OpenAIEmbedder):
        return await client.embed(["a"])
    return await client.complete(HELLO)


@pytest.mark.parametrize(
    ("client", "kind"),
    [*(("chat", kind) for kind in FLOODS), ("anthropic", "trailers"), ("embedder", "trailers")],
)
async def test_endless_framing_ends_the_call_once(client: str, kind: str) -> None:
    async with flood(*FLOODS[kind]) as server:
        asked = CLIENTS[client](server.url)
        async with asyncio.timeout(20), ticker() as gaps:
            with pytest.raises(
                UnavailableError, match=r"more headers or smaller chunks|20,000 chunks"
            ):
                await ask(asked)
            await server.closed.wait()
        # The embedder also tries a harmless text, to see whether the first one is at fault.
        assert server.requests == (2 if client == "embedder" else 1)
        assert max(gaps) < LONGEST_GAP
        await asked.aclose()


async def test_a_canceled_call_closes_its_connection() -> None:
    chunk = b"40\r\n" + b" " * 64 + b"\r\n"
    async with flood(CHUNKED, chunk) as server:
        asked = ChatLLM("m", Provider(base_url=server.url))
        async with asyncio.timeout(20), ticker() as gaps:
            call = asyncio.create_task(ask(asked))
            await server.opened.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.closed.wait()
        assert server.requests == 1
        assert max(gaps) < LONGEST_GAP
        await asked.aclose()


async def test_replies_through_a_proxy_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with flood(*FLOODS["interim answers"]) as server:
        monkeypatch.setenv("http_proxy", server.url)
        asked = ChatLLM("m", Provider(base_url="http://model.invalid"))
        async with asyncio.timeout(20):
            with pytest.raises(UnavailableError, match="more headers or smaller chunks"):
                await ask(asked)
        assert server.requests == 1
        await asked.aclose()


async def test_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 400 No\r\nset-cookie: a=b\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        asked = ChatLLM(
            "m", Provider(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        )
        for _ in range(2):
            with pytest.raises(BadRequestError):
                await ask(asked)
        await asked.aclose()
    assert len(heads) == 2
    assert b"cookie" not in heads[1].lower()
