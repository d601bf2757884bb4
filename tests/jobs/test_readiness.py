"""Probes and metrics report the state of the queue."""

from typing import Any

import pytest

from app.db.database import ALL_ROOTS
from app.jobs import queue
from app.jobs.kind import JobFailedError
from tests.support.jobs import Jobs, raises, until


async def ready(jobs: Jobs) -> Any:
    answer = await jobs.call("GET", "/readyz")
    assert answer["ok"] is True
    return answer["queue"]


EMPTY = {
    "pending": 0,
    "scheduled": 0,
    "blocked": 0,
    "running": 0,
    "oldest_pending_seconds": None,
    "workers": 0,
    "failed": 0,
    "warning": None,
}


async def test_pending_jobs_without_a_worker_are_a_reason_for_a_warning(jobs: Jobs) -> None:
    assert await ready(jobs) == EMPTY
    await jobs.submit(delay_seconds=60)
    assert await ready(jobs) == EMPTY | {"scheduled": 1}
    for _ in range(3):
        await jobs.submit()
    await jobs.sql("UPDATE jobs SET run_at = run_at - interval '10 seconds'")
    found = await ready(jobs)
    assert 10 <= found.pop("oldest_pending_seconds") < 20
    assert "memoryd worker" in found.pop("warning")
    assert found.items() <= (EMPTY | {"pending": 3, "scheduled": 1}).items()


async def test_only_workers_that_live_are_counted(jobs: Jobs) -> None:
    async def lives() -> bool:
        return bool((await ready(jobs))["workers"] == 1)

    async with jobs.working():
        await until(lives)
    assert (await ready(jobs))["workers"] == 0
    async with jobs.database.connection("") as connection:
        await queue.record_heartbeat(connection, "dead", 8)
        assert (await ready(jobs))["workers"] == 1
        await connection.execute("UPDATE workers SET seen_at = seen_at - interval '2 seconds'")
    assert (await ready(jobs))["workers"] == 0


async def test_readiness_and_metrics_count_jobs_by_state(jobs: Jobs) -> None:
    jobs.handler.act = raises(JobFailedError("x", "It cannot be."))
    for _ in range(2):
        await jobs.submit()
    await jobs.run()
    await jobs.submit()
    async with jobs.database.transaction(ALL_ROOTS) as connection:
        await queue.claim(connection, "w", lease_seconds=60, concurrency=99, max_per_root=9)
    await jobs.submit(kind="odd")
    await jobs.submit(delay_seconds=60)
    found = await ready(jobs)
    assert (found["failed"], found["running"], found["pending"]) == (2, 1, 1)
    response = await jobs.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    metrics = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert metrics.pop("memoryd_jobs_oldest_pending_seconds") == pytest.approx(0, abs=5)
    assert metrics == {
        "memoryd_items_waiting_for_embedding": 0,
        "memoryd_jobs_pending": 1,
        "memoryd_jobs_scheduled": 1,
        "memoryd_jobs_blocked": 0,
        "memoryd_jobs_running": 1,
        "memoryd_jobs_workers": 0,
        'memoryd_jobs_failed{kind="test"}': 2,
    }


async def test_probes_report_that_the_database_is_unavailable(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("app.jobs.queue.read_state", refuse)
    for path in ("/readyz", "/metrics"):
        problem = await jobs.call("GET", path, status=503)
        assert problem["code"] == "database_unavailable"
    await jobs.call("GET", "/healthz")
