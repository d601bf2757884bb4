import asyncio
import json
import time
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest

from app.auth.access import ANONYMOUS
from app.db.notifier import WORK
from app.jobs.kind import JobFailedError, JobRun
from app.jobs.record import State
from app.jobs.service import JobService
from tests.support.jobs import Jobs, listening, new_job, raises

pytestmark = pytest.mark.slow  # each waits for workers


async def submit_and_fail(jobs: Jobs) -> None:
    async with jobs.database.transaction("") as connection:
        job_id = await JobService.build(jobs.resources).create(connection, ANONYMOUS, new_job())
        assert await connection.fetchval("SELECT id FROM jobs") == job_id
        raise ZeroDivisionError


async def test_a_job_is_part_of_its_submitters_transaction(jobs: Jobs) -> None:
    stored = "SELECT id FROM jobs UNION ALL SELECT job_id FROM job_events"
    await listening(jobs.resources)
    with jobs.resources.notifier.subscribed(WORK) as news:
        with pytest.raises(ZeroDivisionError):
            await submit_and_fail(jobs)
        await asyncio.sleep(0.1)
        assert not news.is_set()
        assert await jobs.sql(stored) == []
        await jobs.submit()
        async with asyncio.timeout(5):
            await news.wait()
    assert len(await jobs.sql(stored)) == 2


async def test_a_submitted_job_is_done_and_has_a_result(jobs: Jobs) -> None:
    job_id = await jobs.submit(request={"n": 7})
    jobs.handler.act = lambda run: jobs.handler.succeed(run, inserted=run.job.request["n"])
    row = await jobs.done(job_id)
    assert (row["state"], row["attempt"], json.loads(row["result"])) == (
        ("succeeded", 1, {"inserted": 7})
    )
    assert row["created_at"] < row["started_at"] < row["finished_at"]
    assert await jobs.events(job_id) == ["queued", "running", "succeeded"]


async def test_a_submission_is_answered_by_202_and_the_job(client: httpx2.AsyncClient) -> None:
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


async def post(client: httpx2.AsyncClient, *prefer: str) -> httpx2.Response:
    headers = [("prefer", value) for value in prefer]
    return await client.post("/v1/jobs/test", json={}, headers=headers)


@pytest.mark.parametrize("state", ["succeeded", "failed", "awaiting_review"])
async def test_a_client_may_wait_until_the_job_is_settled(jobs: Jobs, state: str) -> None:
    if state == "failed":
        jobs.handler.act = raises(JobFailedError("x", "It cannot be."))
    else:
        jobs.handler.act = partial(jobs.handler.succeed, state=State(state))
    async with jobs.working():
        response = await post(jobs.client, "wait=10")
    assert (response.status_code, response.json()["state"]) == (200, state)
    assert response.headers["preference-applied"] == "wait=10"
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"


async def test_a_wait_that_is_too_short_ends_with_202_and_the_job_goes_on(jobs: Jobs) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    async with jobs.working():
        started = time.monotonic()
        response = await post(jobs.client, "wait=1")
        assert 0.9 < time.monotonic() - started < 3
        assert (response.status_code, response.json()["state"]) == (202, "running")
        assert response.headers["preference-applied"] == "wait=1"
        go_on.set()
        assert (await jobs.settled(response.json()["id"]))["state"] == "succeeded"
    response = await post(jobs.client, "wait=1")
    assert (response.status_code, response.json()["state"]) == (202, "queued"), "no worker"


async def test_a_preference_without_a_valid_time_is_ignored(client: httpx2.AsyncClient) -> None:
    invalid = ("wait", "wait=", "wait=-1", "wait=soon", "await=5", "wait=5s", 'wait="5', "wait=0")
    async with asyncio.timeout(10):
        for prefer in (*invalid, ""):
            response = await post(client, prefer)
            assert response.status_code == 202
            assert "preference-applied" not in response.headers


async def test_the_wait_is_found_among_preferences_and_has_a_limit(jobs: Jobs) -> None:
    async with jobs.working():
        for prefer, applied in [
            (["Wait=9"], "wait=9"),
            (['wait="9"'], "wait=9"),
            (["wait = 9"], "wait=9"),
            (["respond-async; x=1, wait=9; y"], "wait=9"),
            (["respond-async", "wait=9"], "wait=9"),
            (["wait=100000"], "wait=120"),
            (["wait=99999999999999999999"], "wait=120"),
        ]:
            response = await post(jobs.client, *prefer)
            assert (response.status_code, response.headers["preference-applied"]) == (200, applied)


async def test_a_delayed_job_starts_when_it_is_due(jobs: Jobs) -> None:
    started = time.monotonic()
    row = await jobs.done(await jobs.submit(delay_seconds=1.2))
    assert 1.2 <= time.monotonic() - started < 4
    assert row["run_at"] <= row["started_at"]


async def test_notifications_start_jobs_at_once(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.worker.POLL_SECONDS", 60.0)
    job_ids = [await jobs.submit(concurrency_key="x") for _ in range(5)]
    async with jobs.working():
        for job_id in job_ids:
            assert (await jobs.settled(job_id, seconds=5))["state"] == "succeeded"
        for _ in range(3):
            assert (await jobs.settled(await jobs.submit(), seconds=5))["state"] == "succeeded"
    assert [job.id for job in jobs.handler.jobs][:5] == job_ids


async def test_a_job_of_an_unknown_kind_fails_alone(jobs: Jobs) -> None:
    unknown, known = await jobs.submit(kind="unknown"), await jobs.submit()
    async with jobs.working():
        assert (await jobs.settled(known))["state"] == "succeeded"
        assert (await jobs.settled(unknown))["state"] == "failed"


async def test_a_threads_job_is_moved_instead_of_doubled(jobs: Jobs) -> None:
    service = JobService.build(jobs.resources)
    ids = set()
    for seconds in (60.0, 5.0, 600.0):
        fields: dict[str, Any] = {"delay_seconds": seconds, "request": {"s": seconds}}
        new = new_job(kind="extract_thread", thread_id="t1", dedupe_key="t1", **fields)
        async with jobs.database.transaction("") as connection:
            ids.add(await service.create_or_move(connection, ANONYMOUS, new))
    [job_id] = ids
    row = await jobs.row(job_id)
    assert json.loads(row["request"]) == {"s": 600.0}
    assert timedelta(seconds=599) < row["run_at"] - row["created_at"] < timedelta(seconds=620)
