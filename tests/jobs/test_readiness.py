from typing import Any

import httpx2
import pytest

from app.db.database import ALL_ROOTS
from app.jobs import queue
from app.jobs.run import JobFailedError
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    new_job,
    raises,
    run_jobs,
    until,
    worker_of,
    working,
)


async def ready(client: httpx2.AsyncClient) -> Any:
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json()["ok"] is True
    return response.json()["queue"]


async def metrics(client: httpx2.AsyncClient) -> dict[str, float]:
    """Return the samples of /metrics by name and labels."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def test_an_empty_queue_is_nothing_to_warn_of(client: httpx2.AsyncClient) -> None:
    assert await ready(client) == {
        "pending": 0,
        "scheduled": 0,
        "blocked": 0,
        "running": 0,
        "oldest_pending_seconds": None,
        "workers": 0,
        "failed": 0,
        "warning": None,
    }


async def test_jobs_that_wait_while_no_worker_lives_are_warned_of(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    for _ in range(3):
        await enqueue(resources)
    await enqueue(resources, new_job(delay_seconds=60))
    async with resources.database.connection("") as connection:
        await connection.execute("UPDATE jobs SET run_at = run_at - interval '10 seconds'")
    found = await ready(client)
    assert 10 <= found.pop("oldest_pending_seconds") < 20
    assert found == {
        "pending": 3,
        "scheduled": 1,
        "blocked": 0,
        "running": 0,
        "workers": 0,
        "failed": 0,
        "warning": "Jobs wait and no worker lives; start one with `memoryd worker`.",
    }


async def test_scheduled_jobs_are_no_reason_for_a_warning(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    await enqueue(resources, new_job(delay_seconds=60))
    assert (await ready(client))["warning"] is None


async def test_a_worker_that_lives_ends_the_warning(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async def lives() -> bool:
        return bool((await ready(client))["workers"] == 1)

    async with working(worker_of(resources, {KIND: acting})):
        await until(lives)
    assert (await ready(client))["workers"] == 0


async def test_a_worker_that_fell_silent_is_not_counted(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    async with resources.database.connection("") as connection:
        await queue.record_heartbeat(connection, "dead", 8)
        assert (await ready(client))["workers"] == 1
        await connection.execute("UPDATE workers SET seen_at = seen_at - interval '2 seconds'")
    assert (await ready(client))["workers"] == 0


async def test_failed_and_running_jobs_are_counted(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = raises(JobFailedError("x", "It cannot be."))
    for _ in range(2):
        await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    await enqueue(resources)
    async with resources.database.transaction(ALL_ROOTS) as connection:
        await queue.claim(connection, "w", lease_seconds=60, concurrency=99, max_per_root=9)
    found = await ready(client)
    assert (found["failed"], found["running"], found["pending"]) == (2, 1, 0)


async def test_metrics_tell_the_same(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.script.append(raises(JobFailedError("x", "It cannot be.")))
    for _ in range(3):
        await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    await enqueue(resources, new_job(kind="odd"))
    await enqueue(resources, new_job(delay_seconds=60))
    found = await metrics(client)
    assert found.pop("memoryd_jobs_oldest_pending_seconds") == pytest.approx(0, abs=5)
    assert found == {
        "memoryd_jobs_pending": 1,
        "memoryd_jobs_scheduled": 1,
        "memoryd_jobs_blocked": 0,
        "memoryd_jobs_running": 0,
        "memoryd_jobs_workers": 0,
        'memoryd_jobs_failed{kind="test"}': 1,
    }


async def test_probes_say_that_the_database_is_away(
    client: httpx2.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("app.jobs.queue.read_state", refused)
    for path in ("/readyz", "/metrics"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert (await client.get("/healthz")).status_code == 200
