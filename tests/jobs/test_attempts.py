import asyncio
import json
from datetime import timedelta
from typing import Any, cast

import pytest

from app.db.database import DatabaseUnavailableError
from app.errors import InvalidRequestError
from app.jobs.run import JobConflictError, JobFailedError, JobRun
from app.providers.errors import BadRequestError, RateLimitedError, UnavailableError
from tests.support.jobs import Jobs, raises, until

pytestmark = pytest.mark.slow  # each waits for workers


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        (UnavailableError("away"), "provider_unavailable", 5),
        (RateLimitedError("slowly"), "provider_rate_limited", 5),
        (DatabaseUnavailableError(OSError()), "database_unavailable", 5),
        (JobConflictError("changed"), "conflict", 5),
        (TimeoutError(), "timeout", 5),
        (ZeroDivisionError(), "internal_error", 5),
        (asyncio.CancelledError(), "internal_error", 5),
        (JobFailedError("no_kinds", "It cannot be."), "no_kinds", 1),
        (BadRequestError("refused"), "provider_refused", 1),
        (InvalidRequestError("no such thing"), "invalid_request", 1),
    ],
)
async def test_only_errors_that_may_pass_are_tried_again_five_times(
    jobs: Jobs, error: BaseException, code: str, attempts: int
) -> None:
    jobs.handler.act = raises(error)
    row = await jobs.done()
    assert (row["state"], row["attempt"], row["result"]) == ("failed", attempts, None)
    assert row["run_at"] < row["finished_at"]
    assert json.loads(row["error"])["code"] == code
    assert [attempt for _, attempt in jobs.handler.attempts] == list(range(1, attempts + 1))


async def test_a_job_that_succeeds_in_the_end_shows_no_error(jobs: Jobs) -> None:
    jobs.handler.script.extend([raises(UnavailableError("away"))] * 2)
    row = await jobs.done()
    assert (row["state"], row["attempt"], row["error"]) == ("succeeded", 3, None)
    assert await jobs.events(row["id"]) == ["queued", "running"] * 3 + ["succeeded"]


async def pause_of(jobs: Jobs, job_id: str, **settings: Any) -> timedelta:
    """Return how long a job waits after its next attempt, which fails."""

    async def is_paused() -> bool:
        row = await jobs.row(job_id)
        return row["state"] == "queued" and row["error"] is not None

    async with jobs.working(job_backoff_seconds=10, **settings):
        await until(is_paused)
    [row] = await jobs.sql("SELECT run_at - clock_timestamp() AS pause FROM jobs")
    return cast(timedelta, row["pause"])


async def test_a_job_that_awaits_another_attempt_shows_the_error(jobs: Jobs) -> None:
    jobs.handler.act = raises(UnavailableError("The provider is away."))
    job_id = await jobs.submit()
    await pause_of(jobs, job_id)
    job = await jobs.get(job_id)
    assert (job["state"], job["attempt"], job["finished_at"]) == ("queued", 1, None)
    assert job["error"] == {"code": "provider_unavailable", "detail": "The provider is away."}


@pytest.mark.parametrize(
    ("made", "uncounted", "shortest", "longest"),
    [
        (0, 0, 7, 12.6),
        (1, 0, 14, 25.2),
        (3, 0, 56, 101),
        (90, 0, 40 * 60, 75 * 60),
        (0, 5, 7, 12.6),
        (0, 5_000, 7, 12.6),
    ],
)
async def test_the_pause_doubles_with_counted_attempts_up_to_a_limit(
    jobs: Jobs, made: int, uncounted: int, shortest: float, longest: float
) -> None:
    jobs.handler.act = raises(UnavailableError("away"))
    job_id = await jobs.submit()
    most = 100 if made > 5 else 5
    await jobs.sql(
        "UPDATE jobs SET attempt = $1, max_attempts = $2", made + uncounted, most + uncounted
    )
    pause = await pause_of(jobs, job_id, job_attempts=most)
    assert timedelta(seconds=shortest) < pause < timedelta(seconds=longest)


@pytest.mark.parametrize(
    ("made", "retry_after", "shortest", "longest"), [(0, 120, 115, 120), (2, 1, 27, 51)]
)
async def test_a_provider_may_ask_for_a_longer_pause_but_no_shorter_one(
    jobs: Jobs, made: int, retry_after: float, shortest: float, longest: float
) -> None:
    jobs.handler.act = raises(RateLimitedError("slowly", retry_after=retry_after))
    job_id = await jobs.submit()
    await jobs.sql("UPDATE jobs SET attempt = $1", made)
    pause = await pause_of(jobs, job_id)
    assert timedelta(seconds=shortest) < pause <= timedelta(seconds=longest)


async def test_a_handler_that_ends_without_a_result_has_failed(jobs: Jobs) -> None:
    async def end_without_result(_run: JobRun) -> None:
        return

    jobs.handler.act = end_without_result
    row = await jobs.done()
    assert (row["state"], row["attempt"]) == ("failed", 5)
    error = json.loads(row["error"])
    assert error["code"] == "internal_error"
    assert "log" in error["detail"]


async def test_a_job_that_always_fails_leaves_the_others_alone(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        if run.job.request.get("poison"):
            raise RuntimeError("a mistake in the handler")
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    poison = await jobs.submit(request={"poison": True}, concurrency_key="x")
    others = [await jobs.submit() for _ in range(10)]
    others.append(await jobs.submit(concurrency_key="x"))
    async with jobs.working():
        rows = [await jobs.settled(job_id) for job_id in others]
        assert (await jobs.settled(poison))["state"] == "failed"
    assert {(row["state"], row["attempt"]) for row in rows} == {("succeeded", 1)}


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "x" * 100_000])
async def test_an_error_is_stored_whatever_its_text(jobs: Jobs, text: str) -> None:
    jobs.handler.act = raises(JobFailedError("odd", text))
    job = await jobs.get((await jobs.done())["id"])
    assert job["state"] == "failed"
    assert job["error"]["detail"] in {"a\ufffdb", "x" * 2_000}


async def test_an_attempt_has_a_time_limit(jobs: Jobs) -> None:
    jobs.handler.act = lambda _: asyncio.sleep(60)
    row = await jobs.done(job_timeout_seconds=0.1)
    assert (row["state"], row["attempt"]) == ("failed", 5)
    error = json.loads(row["error"])
    assert error["code"] == "timeout"
    assert "0.1 seconds" in error["detail"]
