"""Jobs that meet a mistake in the configuration wait for its correction."""

import asyncio
import time
from datetime import timedelta

import pytest
from asyncpg import Record

from app.cli.doctor import diagnose
from app.indexing.passages import EmbeddingFailedError
from app.providers.errors import MisconfiguredError
from app.providers.llm import LLMNotConfiguredError, ModelNotAllowedError
from tests.support.jobs import Jobs, raises, until

pytestmark = pytest.mark.slow  # each waits for workers

REFUSED = MisconfiguredError("The key is refused (401).")


def embedding_refused() -> Exception:
    error = EmbeddingFailedError("openai:small", REFUSED)
    error.__cause__ = REFUSED
    return error


async def blocked(jobs: Jobs, job_id: str, attempt: int = 1) -> Record:
    """Return a job's row once it waits for the configuration after an attempt."""

    async def is_blocked() -> bool:
        row = await jobs.row(job_id)
        return (row["state"], row["attempt"]) == ("queued", attempt) and row["blocked_since"]

    await until(is_blocked)
    return await jobs.row(job_id)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LLMNotConfiguredError("There is no key."), "llm_not_configured"),
        (ModelNotAllowedError("openai:x", []), "model_not_allowed"),
        (embedding_refused(), "embedding_failed"),
    ],
)
async def test_a_blocked_job_uses_no_attempts_and_runs_once_corrected(
    jobs: Jobs, error: Exception, code: str
) -> None:
    jobs.handler.act = raises(error)
    job_id = await jobs.submit()
    for attempt in (1, 2):  # each worker that starts tries again, at once
        async with jobs.working(job_backoff_seconds=60):
            row = await blocked(jobs, job_id, attempt)
        assert row["max_attempts"] - row["attempt"] == 5
        assert row["run_at"] - row["blocked_since"] > timedelta(seconds=40)
    job = await jobs.get(job_id)
    assert (job["state"], job["error"]["code"]) == ("queued", code)
    assert job["blocked_since"] is not None
    jobs.handler.act = jobs.handler.succeed
    row = await jobs.done(job_id, job_backoff_seconds=60)
    assert (row["state"], row["blocked_since"], row["error"]) == ("succeeded", None, None)


async def test_a_request_does_not_wait_for_the_operator(jobs: Jobs) -> None:
    jobs.handler.act = raises(REFUSED)
    async with jobs.working(job_backoff_seconds=60):
        started = time.monotonic()
        job = await jobs.call(
            "POST", "/v1/jobs/test", status=202, json={}, headers={"prefer": "wait=60"}
        )
        assert time.monotonic() - started < 30
    assert job["error"]["detail"] == str(REFUSED)


async def test_probes_metrics_and_doctor_report_blocked_jobs(jobs: Jobs) -> None:
    jobs.handler.act = raises(REFUSED)
    job_ids = [await jobs.submit() for _ in range(3)]
    async with jobs.working(job_backoff_seconds=60):
        for job_id in job_ids:
            await blocked(jobs, job_id)
        queue = (await jobs.call("GET", "/readyz"))["queue"]
        metrics = (await jobs.client.get("/metrics")).text
    assert (queue["blocked"], queue["pending"], queue["scheduled"]) == (3, 0, 0)
    assert "configuration" in queue["warning"]
    assert "memoryd_jobs_blocked 3.0" in metrics
    findings = await asyncio.to_thread(diagnose, jobs.resources.settings)
    [finding] = [finding for finding in findings if finding.subject == "jobs"]
    assert not finding.good
    assert finding.detail.startswith("3 wait since ")
    assert str(REFUSED) in finding.detail
    job = await jobs.cancel(job_ids[0])
    assert (job["state"], job["blocked_since"]) == ("cancelled", None)
