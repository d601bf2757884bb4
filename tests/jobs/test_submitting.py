import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx2
import pytest

from app.auth.access import ANONYMOUS
from app.db.database import Database
from app.db.notifier import WORK
from app.jobs.record import State
from app.jobs.run import JobFailedError
from app.jobs.service import JobService
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    events_of,
    hang,
    job_row,
    listening,
    new_job,
    raises,
    run_jobs,
    settled,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers or models


async def counted(database: Database, table: str) -> int:
    async with database.connection("") as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def submit_and_fail(resources: Resources) -> None:
    async with resources.database.transaction("") as connection:
        job_id = await JobService.build(resources).create(connection, ANONYMOUS, new_job())
        assert await connection.fetchval("SELECT id FROM jobs") == job_id
        raise ZeroDivisionError


async def test_a_job_is_part_of_its_submitters_transaction(resources: Resources) -> None:
    database = resources.database
    await listening(resources)
    with resources.notifier.subscribed(WORK) as news:
        with pytest.raises(ZeroDivisionError):
            await submit_and_fail(resources)
        await asyncio.sleep(0.1)
        assert not news.is_set()
        assert [await counted(database, table) for table in ("jobs", "job_events")] == [0, 0]
        await enqueue(resources)
        async with asyncio.timeout(5):
            await news.wait()
    assert [await counted(database, table) for table in ("jobs", "job_events")] == [1, 1]


async def test_a_submitted_job_is_done_and_says_what_it_did(
    resources: Resources, acting: Acting
) -> None:
    job_id = await enqueue(resources, new_job(request={"n": 7}))
    acting.script.append(lambda run: acting.succeed(run, counts={"inserted": run.job.request["n"]}))
    await run_jobs(resources, {KIND: acting})
    row = await job_row(resources.database, job_id)
    assert (row["state"], row["attempt"], row["result"]) == (
        "succeeded",
        1,
        '{"counts": {"inserted": 7}}',
    )
    assert row["created_at"] < row["started_at"] < row["finished_at"]
    assert await events_of(resources.database, job_id) == ["queued", "running", "succeeded"]


async def test_the_answer_is_202_with_the_place_of_the_job(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/jobs/test", json={"namespace": ["users", "alice"]})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert "preference-applied" not in response.headers
    assert (await client.get(response.headers["location"])).json() == job
    moments = [job.pop(name) for name in ("id", "run_at", "created_at")]
    assert all(moments)
    assert job == {
        "kind": "test",
        "state": "queued",
        "namespace": ["users", "alice"],
        "manager": None,
        "thread_id": None,
        "attempt": 0,
        "max_attempts": 5,
        "cancel_requested": False,
        "result": None,
        "error": None,
        "blocked_since": None,
        "redacted": False,
        "usage": {
            "model_calls": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "cached_tokens": 0,
            "cost_usd": 0.0,
        },
        "started_at": None,
        "finished_at": None,
    }


async def post(client: httpx2.AsyncClient, prefer: str | None = None, **body: Any) -> Any:
    headers = {} if prefer is None else {"prefer": prefer}
    return await client.post("/v1/jobs/test", json=body, headers=headers)


async def test_who_prefers_to_wait_gets_the_finished_job(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async with working(worker_of(resources, {KIND: acting})):
        response = await post(client, "wait=10")
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=10"
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    assert response.json()["state"] == "succeeded"


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (lambda _: raises(JobFailedError("x", "It cannot be.")), "failed"),
        (lambda acting: partial(acting.succeed, state=State.AWAITING_REVIEW), "awaiting_review"),
    ],
)
async def test_waiting_ends_with_whatever_a_worker_no_longer_changes(
    client: httpx2.AsyncClient,
    resources: Resources,
    acting: Acting,
    outcome: Callable[[Acting], Callable[..., Awaitable[None]]],
    state: str,
) -> None:
    acting.act = outcome(acting)
    async with working(worker_of(resources, {KIND: acting})):
        response = await post(client, "wait=10")
    assert (response.status_code, response.json()["state"]) == (200, state)


async def test_waiting_too_long_ends_with_202_and_the_job_goes_on(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    go_on = asyncio.Event()

    async def slow(run: Any) -> None:
        await go_on.wait()
        await acting.succeed(run)

    acting.act = slow
    async with working(worker_of(resources, {KIND: acting})):
        began = time.monotonic()
        response = await post(client, "wait=1")
        assert 0.9 < time.monotonic() - began < 3
        assert (response.status_code, response.json()["state"]) == (202, "running")
        assert response.headers["preference-applied"] == "wait=1"
        go_on.set()
        row = await settled(resources.database, response.json()["id"])
    assert row["state"] == "succeeded"


@pytest.mark.parametrize(
    "prefer",
    ["wait", "wait=", "wait=-1", "wait=soon", "await=5", "wait=5s", 'wait="5', "wait=0", ""],
)
async def test_a_preference_that_says_no_time_is_ignored(
    client: httpx2.AsyncClient, prefer: str
) -> None:
    async with asyncio.timeout(2):
        response = await post(client, prefer)
    assert response.status_code == 202
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=9", "wait=9"),
        ("Wait=9", "wait=9"),
        ('wait="9"', "wait=9"),
        ("wait = 9", "wait=9"),
        ("respond-async, wait=9", "wait=9"),
        ("respond-async; x=1, wait=9; y", "wait=9"),
        ("wait=100000", "wait=120"),
        ("wait=99999999999999999999", "wait=120"),
    ],
)
async def test_the_wait_is_found_among_preferences_and_has_a_limit(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, prefer: str, applied: str
) -> None:
    async with working(worker_of(resources, {KIND: acting})):
        response = await post(client, prefer)
    assert (response.status_code, response.headers["preference-applied"]) == (200, applied)


async def test_several_prefer_headers_are_one_list(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    headers = [("prefer", "respond-async"), ("prefer", "wait=9")]
    async with working(worker_of(resources, {KIND: acting})):
        response = await client.post("/v1/jobs/test", json={}, headers=headers)
    assert response.status_code == 200


async def test_a_delayed_job_starts_when_it_is_due(resources: Resources, acting: Acting) -> None:
    began = time.monotonic()
    job_id = await enqueue(resources, new_job(delay_seconds=1.2))
    async with working(worker_of(resources, {KIND: acting})):
        row = await settled(resources.database, job_id)
    assert 1.2 <= time.monotonic() - began < 4
    assert row["run_at"] <= row["started_at"]


async def test_news_start_a_job_before_anybody_looks(
    resources: Resources, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.worker.POLL_SECONDS", 60.0)
    async with working(worker_of(resources, {KIND: acting})):
        for _ in range(3):
            row = await settled(resources.database, await enqueue(resources), seconds=5)
            assert row["state"] == "succeeded"


async def test_jobs_of_one_concurrency_key_follow_one_another_at_once(
    resources: Resources, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.worker.POLL_SECONDS", 60.0)
    job_ids = [await enqueue(resources, new_job(concurrency_key="x")) for _ in range(5)]
    async with working(worker_of(resources, {KIND: acting})):
        for job_id in job_ids:
            assert (await settled(resources.database, job_id, seconds=5))["state"] == "succeeded"
    assert [job.id for job in acting.jobs] == job_ids


async def test_a_job_of_an_unknown_kind_fails_alone(resources: Resources, acting: Acting) -> None:
    unknown = await enqueue(resources, new_job(kind="unheard-of"))
    known = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        assert (await settled(resources.database, known))["state"] == "succeeded"
        assert (await settled(resources.database, unknown))["state"] == "failed"


async def test_a_job_is_not_done_while_nobody_works(client: httpx2.AsyncClient) -> None:
    response = await post(client, "wait=1")
    assert (response.status_code, response.json()["state"]) == (202, "queued")


async def test_a_job_may_take_only_so_long(resources: Resources, acting: Acting) -> None:
    acting.act = hang
    chosen = resources.settings.model_copy(update={"job_timeout_seconds": 0.1, "job_attempts": 5})
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting}, chosen)):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    assert row["error"] == (
        '{"code": "timeout", "detail": "The attempt took longer than 0.1 seconds."}'
    )
