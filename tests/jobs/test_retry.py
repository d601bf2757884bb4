"""Failed and canceled jobs are queued again, one by one or many at once."""

from functools import partial
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, ANONYMOUS, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.jobs import repository
from app.jobs.kind import JobFailedError
from app.jobs.record import State
from app.jobs.service import JobService
from app.providers.errors import UnavailableError
from tests.support.jobs import KIND, Jobs, new_job, raises

pytestmark = pytest.mark.slow  # each waits for workers


async def test_a_retried_job_has_all_its_attempts_again(jobs: Jobs) -> None:
    jobs.handler.act = raises(UnavailableError("away"))
    job_id = (await jobs.done())["id"]
    job = await jobs.retry(job_id)
    assert (job["state"], job["attempt"], job["max_attempts"]) == ("queued", 5, 10)
    assert (job["error"], job["finished_at"]) == (None, None)
    row = await jobs.done(job_id)
    assert (row["state"], row["attempt"]) == ("failed", 10)
    jobs.handler.act = jobs.handler.succeed
    await jobs.retry(job_id)
    row = await jobs.done(job_id)
    assert (row["state"], row["attempt"], row["error"]) == ("succeeded", 11, None)


async def test_a_canceled_job_is_retried_and_shows_no_earlier_result(jobs: Jobs) -> None:
    jobs.handler.act = partial(jobs.handler.succeed, state=State.AWAITING_REVIEW, n=1)
    job_id = (await jobs.done())["id"]
    async with jobs.database.transaction("") as connection:
        assert await repository.settle(
            connection, job_id, State.AWAITING_REVIEW, State.CANCELLED, {"n": 2}
        )
    job = await jobs.retry(job_id)
    assert (job["state"], job["result"], job["finished_at"]) == ("queued", None, None)


async def test_queued_and_succeeded_jobs_cannot_be_retried(jobs: Jobs) -> None:
    job_id = await jobs.submit()
    assert (await jobs.retry(job_id, status=409))["code"] == "job_state"
    await jobs.run()
    assert (await jobs.retry(job_id, status=409))["code"] == "job_state"
    assert (await jobs.row(job_id))["attempt"] == 1


async def test_a_threads_job_is_not_retried_while_another_is_queued(jobs: Jobs) -> None:
    service = JobService.build(jobs.resources)
    new = new_job(kind="extract_thread", thread_id="t1", dedupe_key="t1", delay_seconds=60)

    async def create_or_move() -> str:
        async with jobs.database.transaction("") as connection:
            return await service.create_or_move(connection, ANONYMOUS, new)

    first = await create_or_move()
    await jobs.cancel(first)
    assert await create_or_move() != first
    problem = await jobs.retry(first, status=409)
    assert problem["code"] == "job_state"
    assert "another job of its thread is queued" in problem["detail"]


async def retry_many(jobs: Jobs, status: Any = 200, **body: Any) -> Any:
    headers = body.pop("headers", {})
    return await jobs.call("POST", "/v1/jobs/retry", status=status, json=body, headers=headers)


async def failed(jobs: Jobs, number: int, code: str = "odd", **fields: Any) -> list[str]:
    jobs.handler.act = raises(JobFailedError(code, "It cannot be."))
    job_ids = [await jobs.submit(**fields) for _ in range(number)]
    await jobs.run()
    jobs.handler.act = jobs.handler.succeed
    return job_ids


async def queued(jobs: Jobs, job_ids: list[str]) -> list[bool]:
    return [(await jobs.row(job_id))["state"] == "queued" for job_id in job_ids]


async def test_all_failed_jobs_are_queued_again_and_done(jobs: Jobs) -> None:
    job_ids = await failed(jobs, 20)
    assert await retry_many(jobs) == {"retried": 20, "has_more": False}
    await jobs.run()
    rows = [await jobs.row(job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"], row["error"]) for row in rows} == {
        ("succeeded", 2, None)
    }
    assert await retry_many(jobs) == {"retried": 0, "has_more": False}


async def test_only_the_selected_jobs_are_retried(jobs: Jobs) -> None:
    [alice] = await failed(jobs, 1, labels=["users", "alice"])
    [bob] = await failed(jobs, 1, "other", labels=["users", "bob"])
    cancelled = await jobs.submit()
    await jobs.cancel(cancelled)
    created = (await jobs.get(bob))["created_at"]
    for selection in (
        {"namespace": ["users", "carol"]},
        {"kind": "extract"},
        {"error_code": "worker_lost"},
        {"created_after": "2999-01-01T00:00:00Z"},
        {"created_before": "2000-01-01T00:00:00Z"},
        {"namespace": ["users", "bob"], "error_code": "odd"},
    ):
        assert await retry_many(jobs, **selection) == {"retried": 0, "has_more": False}
    assert (await retry_many(jobs, created_before=created))["retried"] == 1
    assert await queued(jobs, [alice, bob]) == [True, False]
    selected = {"namespace": ["users", "bob"], "kind": KIND, "error_code": "other"}
    assert (await retry_many(jobs, **selected, created_after=created))["retried"] == 1
    assert await queued(jobs, [bob, cancelled]) == [True, False]
    assert (await retry_many(jobs, state="cancelled"))["retried"] == 1
    assert await queued(jobs, [cancelled]) == [True]


async def test_a_retry_of_many_is_limited(jobs: Jobs) -> None:
    job_ids = sorted(await failed(jobs, 5))  # oldest first; ids of one millisecond in any order
    assert await retry_many(jobs, limit=3) == {"retried": 3, "has_more": True}
    assert await queued(jobs, job_ids) == [True, True, True, False, False]
    assert await retry_many(jobs, limit=3) == {"retried": 2, "has_more": False}
    problem = await retry_many(jobs, 422, limit=1001)
    assert problem["errors"][0]["field"] == "limit"


async def test_only_jobs_that_the_key_may_see_are_retried(jobs: Jobs, clock: FrozenClock) -> None:
    keys = KeyService(jobs.database, clock)
    jobs_of_alice = (Grant(("users", "alice"), frozenset({Verb.JOBS})),)
    alice = await keys.create("alice", root=[], grants=jobs_of_alice, expires_at=None)
    stranger = await keys.create("acme", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    job_ids = await failed(jobs, 2, labels=["users", "bob"])
    job_ids += await failed(jobs, 2, labels=["users", "alice"])
    assert (await retry_many(jobs, headers={"x-api-key": str(stranger)}))["retried"] == 0
    headers = {"x-api-key": str(alice)}
    for namespace in ([], ["users"], ["users", "bob"]):
        problem = await retry_many(jobs, 403, namespace=namespace, headers=headers)
        assert problem["code"] == "forbidden"
    found = await retry_many(jobs, namespace=["users", "alice"], headers=headers)
    assert found["retried"] == 2
    assert await queued(jobs, job_ids) == [False, False, True, True]
