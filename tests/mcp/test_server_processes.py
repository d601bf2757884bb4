"""MCP with several server processes, which share no state of a connection."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from mcp import Client

from tests.support.databases import Cluster
from tests.support.mcp_client import Agent
from tests.support.server import Server, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_processes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("mcp-server") / "log"
    with cluster.database() as url:
        environment = {"MEMORYD_DATABASE_URL": url, "MEMORYD_EMBEDDING": "fake:hashed"}
        with serving(log, "--workers", "2", environment=environment) as server:
            yield server


async def test_two_clients_make_thirty_concurrent_calls_each(two_processes: Server) -> None:
    url = f"{two_processes.url}/mcp?namespace=parallel"
    async with Client(f"{url}.new") as new, Client(f"{url}.old", mode="legacy") as old:
        await asyncio.gather(make_thirty_calls(Agent(new)), make_thirty_calls(Agent(old)))


async def make_thirty_calls(agent: Agent) -> None:
    texts = [f"The number is {number}." for number in range(30)]
    ids = await asyncio.gather(*(agent.remember(text) for text in texts))
    assert len(set(ids)) == 30
    assert set(await agent.texts(limit=50)) == set(texts)
    found = await asyncio.gather(*(agent.texts(query=text, limit=50) for text in texts))
    assert all(text in each for text, each in zip(texts, found, strict=True))


async def test_clients_that_disconnect_do_not_harm_the_server(two_processes: Server) -> None:
    call = {"name": "remember", "arguments": {"text": "Never mind."}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
    request = (
        f"POST /mcp?namespace=away HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    for length in (len(request), len(request) - 9):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", two_processes.port)
            writer.write(request[:length].encode())
            writer.close()
            await writer.wait_closed()
    async with Client(f"{two_processes.url}/mcp?namespace=away") as opened:
        await Agent(opened).remember("Still there.")
        assert "Still there." in await Agent(opened).texts(query="still there")
    assert "Traceback" not in two_processes.log.read_text()
