"""Each message is learned from once, though workers are killed."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.app import Store
from tests.support.databases import Cluster
from tests.support.jobs import until
from tests.support.llm_server import LLMServer, llm_server
from tests.support.server import serving
from tests.support.threads import Threads
from tests.threads.processes import Worker, environment_of, worker_process
from tests.threads.remembering import remembering

pytestmark = pytest.mark.slow

MANAGER = {"namespace": ["users", "{user_id}"]}
USERS = ("ann", "ben")


async def extracted(threads: Threads, thread_id: str) -> None:
    """Wait until no message of a thread is pending."""

    async def is_done() -> bool:
        return not (await threads.get(thread_id))["pending"]

    await until(is_done, seconds=60)


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        started.respond = remembering()
        yield started


@pytest.fixture
def environment(cluster: Cluster, llm: LLMServer) -> Iterator[dict[str, str]]:
    with cluster.database() as url:
        yield environment_of(url, llm)


@pytest.fixture
async def client(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server process without a worker."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(tmp_path / "server.log", environment=environment))
        yield await stack.enter_async_context(httpx2.AsyncClient(base_url=server.url, timeout=30))


@pytest.fixture
def worker(
    environment: dict[str, str], client: httpx2.AsyncClient, tmp_path: Path
) -> Iterator[Worker]:
    with worker_process(environment, tmp_path / "worker.log") as started:
        yield started


async def asks_again(llm: LLMServer) -> None:
    """Wait until a worker is at work."""
    before = len(llm.requests)
    await until(lambda: asyncio.sleep(0, len(llm.requests) > before), seconds=60)


async def test_messages_are_extracted_once_though_workers_are_killed(
    threads: Threads, store: Store, worker: Worker, llm: LLMServer
) -> None:
    llm.respond = remembering(delay=0.2)
    said: Counter[str] = Counter()

    async def talk(user: str) -> None:
        chosen: dict[str, Any] = {"manager_config": MANAGER, "variables": {"user_id": user}}
        texts = [f"{user} says {said[user] + n}" for n in range(random.randint(1, 3))]  # noqa: S311
        await threads.append(user, *texts, after_seconds=0, **chosen)
        said[user] += len(texts)

    for wait in (0.0, random.uniform(0.2, 0.4)):  # noqa: S311  # during the call; near the write
        for user in USERS:
            await talk(user)
        await asks_again(llm)
        await asyncio.sleep(wait)
        worker.kill_and_start_again()
        for user in USERS:
            await talk(user)
    for user in USERS:
        await extracted(threads, user)
        items = await store.search(["users", user], limit=1000)
        assert sorted(item["source"]["position"] for item in items) == list(range(said[user]))
    jobs = (await threads.client.get("/v1/jobs?limit=200")).json()["jobs"]
    assert max(job["attempt"] for job in jobs) > 1
