"""A prompt gets one new version, though workers are killed."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.prompts.optimizing import CASE, TALK, URL, likes, model
from tests.support.databases import Cluster
from tests.support.jobs import until
from tests.support.llm_server import LLMServer, llm_server
from tests.support.server import serving
from tests.threads.processes import Worker, environment_of, worker_process

pytestmark = pytest.mark.slow

JSON = dict[str, Any]

NEW = "Answer in one sentence."
KILLS = 4
STEPS = {"improve": 3, "answer": 5, "judge": 7}
"""How many calls were made when a model is at it: three that improve, two answers, two verdicts."""


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        started.respond = model(NEW, judge=likes("one sentence"), delay=0.3)
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


async def submit(client: httpx2.AsyncClient, name: str) -> str:
    """Submit a job that improves a prompt and tries the new text."""
    await client.put(f"/v1/prompts/{name}", json={"text": "Answer."})
    body = {
        "prompt": {"name": name},
        "trajectories": [TALK],
        "evaluation": {"cases": [CASE]},
    }
    response = await client.post(URL, json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def done(client: httpx2.AsyncClient, job_id: str) -> JSON:
    """Return a job once it has ended."""
    job: JSON = {}

    async def ended() -> bool:
        job.update((await client.get(f"/v1/jobs/{job_id}")).json())
        return job["state"] not in {"queued", "running"}

    await until(ended, 60)
    return job


async def asks_again(llm: LLMServer) -> None:
    """Wait until a worker is at work."""
    before = len(llm.requests)
    await until(lambda: asyncio.sleep(0, len(llm.requests) > before), 60)


async def versions(client: httpx2.AsyncClient, name: str) -> list[JSON]:
    """Return a prompt's versions, newest first."""
    found: list[JSON] = (await client.get(f"/v1/prompts/{name}/versions")).json()["versions"]
    return found


async def assert_improved_once(client: httpx2.AsyncClient, name: str, job: JSON) -> None:
    assert job["state"] == "succeeded", job
    new, old = await versions(client, name)
    assert (new["version"], new["labels"]) == (2, ["candidate", "production"])
    assert (old["version"], old["labels"]) == (1, [])
    assert new["actor"].endswith(job["id"])
    [found] = job["result"]["prompts"]
    assert (found["version"], found["text"]) == (2, NEW)


@pytest.mark.parametrize("calls", STEPS.values(), ids=STEPS)
async def test_a_worker_killed_while_a_model_answers_leads_to_one_retry_and_one_version(
    client: httpx2.AsyncClient, worker: Worker, llm: LLMServer, calls: int
) -> None:
    job_id = await submit(client, "support")
    await until(lambda: asyncio.sleep(0, len(llm.requests) >= calls), 60)
    assert llm.in_flight
    worker.kill_and_start_again()
    job = await done(client, job_id)
    await assert_improved_once(client, "support", job)
    assert job["attempt"] == 2
    assert len(llm.requests) == calls + 7


async def test_workers_killed_at_any_moment_improve_each_prompt_once(
    client: httpx2.AsyncClient, worker: Worker, llm: LLMServer
) -> None:
    llm.respond = model(NEW, judge=likes("one sentence"), delay=0.03)
    random.seed(5)
    jobs = {name: await submit(client, name) for name in map("p{}".format, range(12))}
    for _ in range(KILLS):
        await asks_again(llm)
        await asyncio.sleep(random.uniform(0, 0.3))  # noqa: S311  # before, in or after the writing
        await asyncio.to_thread(worker.kill_and_start_again)
    ended = {name: await done(client, job_id) for name, job_id in jobs.items()}
    for name, job in ended.items():
        await assert_improved_once(client, name, job)
    assert max(job["attempt"] for job in ended.values()) > 1
