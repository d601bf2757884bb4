"""`memoryd mcp --url`, which forwards to a running server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.auth.access import Verb
from app.auth.service import KeyService
from app.clock import SystemClock
from app.db.database import Database
from app.mcp.stdio import ServerUnreachableError, address_of, forward
from tests.support.databases import Cluster
from tests.support.keys import grant, key_with
from tests.support.mcp_client import Agent, started
from tests.support.server import Server, serving


@pytest.fixture(scope="module")
def locked(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A server that wants a key, and a key that may only read and write below acme."""
    log = tmp_path_factory.mktemp("mcp-server") / "log"
    with cluster.database() as url:
        key = asyncio.run(limited_key(url))
        environment = {"MEMORYD_DATABASE_URL": url, "MEMORYD_EMBEDDING": "fake:hashed"}
        with serving(log, environment=environment) as server:
            yield server, key


async def limited_key(url: str) -> str:
    database = await Database.open(url, pool_size=1)
    granted = grant({Verb.READ, Verb.WRITE})
    key = await key_with(KeyService(database, SystemClock()), granted, root=("acme",))
    await database.close()
    return key["x-api-key"]


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Yield the address of a relay to a server, and a function that closes it."""
    opened: list[asyncio.StreamWriter] = []

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while received := await reader.read(65_536):
            writer.write(received)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(send(reader, to_server), send(from_server, writer))

    def close() -> None:
        listener.close()
        for writer in opened:
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", close
    close()


@pytest.mark.slow
async def test_everything_is_forwarded_until_the_server_stops(
    locked: tuple[Server, str], tmp_path: Path, mode: str
) -> None:
    server, key = locked
    async with relay(server.port) as (url, stop):
        given = ("--url", f"{url}/mcp/", "--namespace", f"users.{mode}")
        environment = {"MEMORYD_API_KEY": key}
        async with started(*given, environment=environment, cwd=tmp_path, mode=mode) as opened:
            assert opened.instructions
            assert opened.server_info is not None
            assert opened.server_info.name == "memoryd"
            agent = Agent(opened)
            names = [tool.name for tool in (await opened.list_tools()).tools]
            assert names == ["search_memories", "remember", "update_memory", "list_namespaces"]
            memory = await agent.remember("Ann likes ramen.")
            assert "/" not in memory
            found = await asyncio.gather(*(agent.texts(query="ramen") for _ in range(30)))
            assert found == [["Ann likes ramen."]] * 30
            assert "no grant to delete" in await agent.refused("forget_memory", id=memory)
            (resource,) = (await opened.list_resources()).resources
            (read,) = (await opened.read_resource(resource.uri)).contents
            assert "ramen" in read.model_dump_json()
            assert len((await opened.list_resource_templates()).resource_templates) == 1
            assert (await opened.list_prompts()).prompts == []
            with pytest.raises(Exception, match='There is no prompt "none"'):
                await opened.get_prompt("none")
            with pytest.raises(Exception, match="There is no memory"):
                await opened.read_resource("memory:///none")
            stop()
            for _ in range(2):
                with pytest.raises(Exception, match="does not answer"):
                    await opened.call_tool("remember", {"text": "b"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "namespace", "said"),
    [
        (None, [], "needs an API key"),
        ("mk_a_b", [], "The API key is unknown"),
        ("right", ["a\x1fb"], "contains U\\+001F"),
    ],
)
async def test_refusals_of_the_server_are_repeated(
    locked: tuple[Server, str], key: str | None, namespace: list[str], said: str
) -> None:
    server, right = locked
    with pytest.raises(ServerUnreachableError, match=said):
        await forward(address_of(server.url, namespace), right if key == "right" else key)


async def test_an_unreachable_server_is_an_error() -> None:
    said = "^http://127.0.0.1:1/mcp: The server does not answer"
    with pytest.raises(ServerUnreachableError, match=said):
        await forward(address_of("http://127.0.0.1:1", []), None)


async def test_a_server_other_than_memoryd_is_an_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 502 Bad Gateway", "content-type: text/html", "content-length: 6"
        writer.write("\r\n".join([*head, "connection: close", "", "<html>"]).encode())
        await reader.read()  # until the client has read it, and goes
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as gateway:
        url = f"http://127.0.0.1:{gateway.sockets[0].getsockname()[1]}"
        with pytest.raises(ServerUnreachableError, match="not from memoryd: 502 Bad Gate"):
            await forward(address_of(url, []), None)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", ""])
def test_bad_addresses_are_errors(url: str) -> None:
    with pytest.raises(ServerUnreachableError, match="is not the address of a server"):
        address_of(url, [])
