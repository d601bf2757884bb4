"""MCP with real processes, none of which knows what another has answered."""

import asyncio
from collections.abc import Iterator

import httpx2
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


async def test_thirty_calls_at_once(two_processes: Server, mode: str) -> None:
    async with Client(
        f"{two_processes.url}/mcp?namespace=parallel.{mode[:4]}", mode=mode
    ) as opened:
        agent = Agent(opened)
        texts = [f"The number is {number}." for number in range(30)]
        ids = await asyncio.gather(*(agent.remember(text) for text in texts))
        assert len(set(ids)) == 30
        assert set(await agent.texts(limit=50)) == set(texts)
        found = await asyncio.gather(*(agent.texts(query=text, limit=50) for text in texts))
        assert all(text in each for text, each in zip(texts, found, strict=True))


async def test_a_client_that_goes_away_leaves_the_server_well(two_processes: Server) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "remember"}}
    headers = {"accept": "application/json", "content-type": "application/json"}
    async with httpx2.AsyncClient(timeout=0.002) as hasty:
        for _ in range(20):
            with pytest.raises(httpx2.TimeoutException):
                await hasty.post(f"{two_processes.url}/mcp", json=call, headers=headers)
    async with Client(f"{two_processes.url}/mcp") as opened:
        await Agent(opened).remember("still there")
