"""Each message is learned from once, though workers are killed."""

import asyncio
import random
import time
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
from tests.threads.remembering import learned_from, remembering

pytestmark = pytest.mark.slow

MANAGER = {"namespace": ["users", "{user_id}"]}
KILLS = 3


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


async def ended_states(threads: Threads, thread_id: str, seconds: float = 30) -> set[str]:
    """Return the states of a thread's jobs once none of them is queued or running."""
    deadline = time.monotonic() + seconds
    while True:
        jobs = (await threads.client.get(f"/v1/jobs?thread_id={thread_id}")).json()["jobs"]
        states = {job["state"] for job in jobs}
        if not states & {"queued", "running"} or time.monotonic() > deadline:
            return states
        await asyncio.sleep(0.1)


async def learned(threads: Threads, thread_id: str, seconds: float = 60) -> None:
    """Wait until memories were formed of every message of a thread."""
    deadline = time.monotonic() + seconds
    while (thread := await threads.get(thread_id))["pending"]:
        assert time.monotonic() < deadline, thread
        await asyncio.sleep(0.1)


async def positions(store: Store, user: str) -> list[int]:
    items = await store.search(["users", user], limit=1000)
    return sorted(item["source"]["position"] for item in items)


async def test_a_worker_killed_while_the_model_answers_leads_to_one_more_call(
    threads: Threads, store: Store, worker: Worker, llm: LLMServer
) -> None:
    llm.respond = remembering(delay=1.0)
    alice: dict[str, Any] = {"manager_config": MANAGER, "variables": {"user_id": "alice"}}
    await threads.append("t", "one", "two", after_seconds=0, **alice)
    await asks_again(llm)
    await threads.append("t", "three", after_seconds=0)
    worker.kill_and_start_again()
    await learned(threads, "t")
    assert await positions(store, "alice") == [0, 1, 2]
    asked = Counter(text for request in llm.requests for text in learned_from(request))
    assert asked["one"] == asked["two"] == 2
    assert await ended_states(threads, "t") == {"succeeded"}


async def test_workers_killed_at_any_moment_lose_no_message_and_learn_none_twice(
    threads: Threads, store: Store, worker: Worker, llm: LLMServer
) -> None:
    llm.respond = remembering(delay=0.1)
    users = ("ann", "ben", "cat")
    random.seed(4)
    stop = asyncio.Event()

    async def talk(user: str) -> int:
        said = 0
        chosen: dict[str, Any] = {"manager_config": MANAGER, "variables": {"user_id": user}}
        while not stop.is_set():
            texts = [f"{user} says {said + n}" for n in range(random.randint(1, 3))]  # noqa: S311
            await threads.append(user, *texts, after_seconds=0.2, max_wait_seconds=1, **chosen)
            said += len(texts)
            await asyncio.sleep(random.uniform(0.2, 0.8))  # noqa: S311
        return said

    talking = [asyncio.create_task(talk(user)) for user in users]
    for _ in range(KILLS):
        await asks_again(llm)
        await asyncio.sleep(random.uniform(0, 0.3))  # noqa: S311  # before, in or after the writing
        await asyncio.to_thread(worker.kill_and_start_again)
    stop.set()
    for user, said in zip(users, await asyncio.gather(*talking), strict=True):
        await learned(threads, user)
        assert await positions(store, user) == list(range(said))
    jobs = (await threads.client.get("/v1/jobs?limit=200")).json()["jobs"]
    assert max(job["attempt"] for job in jobs) > 1
