"""Processes are killed, paused and stopped, connections cut, in the middle of work."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.databases import Cluster
from tests.support.jobs import until
from tests.support.workers import Deployment, deployed

pytestmark = pytest.mark.slow

ITEMS_EACH = 2
START_SECONDS = 90
"""Time that a worker process, and a child for an isolated job, may need on a busy machine."""


@pytest.fixture
def deployment(cluster: Cluster, tmp_path: Path) -> Iterator[Deployment]:
    """A server without workers."""
    with deployed(cluster, tmp_path) as started:
        yield started


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[httpx2.AsyncClient]:
    # The server closes idle connections after five seconds; a client that keeps them as long races.
    limits = httpx2.Limits(keepalive_expiry=2)
    url = deployment.server.url
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as opened:
        yield opened


async def submit(client: httpx2.AsyncClient, numbers: range, namespaces: int) -> list[str]:
    """Submit jobs that each add items of their own to one of some namespaces."""

    async def one(n: int) -> str:
        body = {
            "manager_config": {"strategy": "verbatim"},
            "namespace": ["users", f"u{n % namespaces}"],
            "messages": [["user", f"Fact {n}, part {part}."] for part in range(ITEMS_EACH)],
        }
        response = await client.post("/v1/jobs/extract", json=body)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    ids: list[str] = []
    for start in range(numbers.start, numbers.stop, 20):
        ids += await asyncio.gather(*map(one, range(start, min(start + 20, numbers.stop))))
    return ids


async def all_ended(deployment: Deployment) -> bool:
    question = "SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1"
    return not await deployment.ask(question)


async def some_are_running(deployment: Deployment) -> bool:
    return bool(await deployment.ask("SELECT 1 FROM jobs WHERE state = 'running'"))


async def assert_each_applied_once(deployment: Deployment, job_ids: list[str]) -> None:
    jobs = await deployment.ask("SELECT id, state, max_attempts - attempt AS left FROM jobs")
    assert sorted(row["id"] for row in jobs) == sorted(job_ids)
    assert {row["state"] for row in jobs} == {"succeeded"}
    assert min(row["left"] for row in jobs) >= 0
    [versions] = await deployment.ask(
        "SELECT count(*) AS versions, count(DISTINCT (namespace, key)) AS items FROM item_versions"
    )
    assert versions["versions"] == versions["items"] == ITEMS_EACH * len(job_ids)
    inserts = await deployment.ask(
        "SELECT job_id, count(*) FROM job_changes WHERE state = 'applied' GROUP BY job_id"
    )
    assert {row["job_id"]: row["count"] for row in inserts} == dict.fromkeys(job_ids, ITEMS_EACH)
    ends = await deployment.ask("SELECT job_id FROM job_events WHERE event = 'succeeded'")
    assert sorted(row["job_id"] for row in ends) == sorted(job_ids)


async def test_workers_killed_under_load_lose_and_repeat_nothing(
    deployment: Deployment, client: httpx2.AsyncClient
) -> None:
    chance = random.Random(1)  # noqa: S311 - chooses moments, not secrets
    job_ids = await submit(client, range(160), 40)
    workers = [deployment.start_worker() for _ in range(2)]
    for round_ in range(3):
        await until(lambda: some_are_running(deployment), START_SECONDS)
        await asyncio.sleep(chance.uniform(0, 0.2))
        for doomed in chance.sample(workers, chance.randint(1, 2)):
            doomed.kill()
            workers.remove(doomed)
        job_ids += await submit(client, range(160 + 40 * round_, 200 + 40 * round_), 40)
        while len(workers) < 2:
            workers.append(deployment.start_worker())
    await until(lambda: all_ended(deployment), 90)
    await assert_each_applied_once(deployment, job_ids)
    lost = await deployment.ask("SELECT 1 FROM job_events WHERE event = 'queued' AND number > 1")
    assert lost, "some were killed in the middle of a job"


async def test_a_worker_that_freezes_for_good_holds_nobody_up_for_long(
    deployment: Deployment, client: httpx2.AsyncClient
) -> None:
    """Wherever it freezes, in a claim or in its last transaction with a job locked, too."""
    frozen = deployment.start_worker()
    job_ids = await submit(client, range(100), 20)
    async with deployment.items_locked():
        await until(lambda: some_wait_for_a_lock(deployment), START_SECONDS)
        frozen.pause()
    deployment.start_worker()
    await until(lambda: all_ended(deployment), 90)
    await assert_each_applied_once(deployment, job_ids)


async def some_wait_for_a_lock(deployment: Deployment) -> bool:
    return bool(await deployment.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))


async def test_a_stopped_worker_drains(deployment: Deployment, client: httpx2.AsyncClient) -> None:
    job_ids = await submit(client, range(120), 40)
    for _ in range(2):
        worker = deployment.start_worker()
        await until(lambda: some_are_running(deployment), START_SECONDS)
        assert worker.stop() == 0
        assert not await some_are_running(deployment)
        assert await deployment.ask("SELECT * FROM workers") == []
    deployment.start_worker()
    await until(lambda: all_ended(deployment), 60)
    await assert_each_applied_once(deployment, job_ids)
    assert await deployment.ask("SELECT 1 FROM jobs WHERE error IS NOT NULL") == []


async def test_connections_cut_under_load_lose_and_repeat_nothing(
    deployment: Deployment, client: httpx2.AsyncClient
) -> None:
    for _ in range(2):
        deployment.start_worker()
    job_ids = await submit(client, range(200), 40)
    for _ in range(6):
        await asyncio.sleep(0.15)
        await deployment.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
    await until(lambda: all_ended(deployment), 90)
    await assert_each_applied_once(deployment, job_ids)


async def test_a_server_that_is_stopped_does_not_wait_for_followers(
    deployment: Deployment, client: httpx2.AsyncClient
) -> None:
    [job_id] = await submit(client, range(1), 1)
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.status_code == 200
        deployment.server.process.terminate()
        await until(lambda: has_ended(deployment), 20)


async def has_ended(deployment: Deployment) -> Any:
    return deployment.server.process.poll() is not None
