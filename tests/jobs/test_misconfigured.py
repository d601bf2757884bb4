"""Jobs that run into a mistake in the configuration wait for its correction."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from asyncpg import Record

from app.cli.doctor import diagnose
from app.indexing.errors import EmbeddingFailedError
from app.jobs.run import JobRun
from app.providers.errors import MisconfiguredError
from app.providers.llm.pool import LLMNotConfiguredError, ModelNotAllowedError
from app.resources import Resources
from tests.support.jobs import (
    KIND,
    Acting,
    enqueue,
    job_row,
    quick,
    raises,
    settled,
    until,
    worker_of,
    working,
)

pytestmark = pytest.mark.slow  # each waits for workers


def embedding_refused() -> Exception:
    refused = MisconfiguredError("The key is refused.")
    error = EmbeddingFailedError("openai:small", refused)
    error.__cause__ = refused
    return error


async def waits(resources: Resources, job_id: str) -> Record:
    """Return a job's row once it waits for the configuration."""

    async def is_waiting() -> bool:
        row = await job_row(resources.database, job_id)
        return row["state"] == "queued" and row["blocked_since"] is not None

    await until(is_waiting)
    return await job_row(resources.database, job_id)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LLMNotConfiguredError("There is no key."), "llm_not_configured"),
        (ModelNotAllowedError("openai:x", []), "model_not_allowed"),
        (MisconfiguredError("The key is refused (401)."), "provider_misconfigured"),
        (embedding_refused(), "embedding_failed"),
    ],
)
async def test_a_job_waits_without_using_up_attempts_and_runs_once_corrected(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, error: Exception, code: str
) -> None:
    acting.act = raises(error)
    slow = quick(resources.settings, job_backoff_seconds=60)
    job_id = await enqueue(resources)
    for attempt in (1, 2):  # each worker that starts looks again, at once
        async with working(worker_of(resources, {KIND: acting}, slow)):

            async def is_tried(attempt: int = attempt) -> bool:
                return bool((await job_row(resources.database, job_id))["attempt"] == attempt)

            await until(is_tried)
            row = await waits(resources, job_id)
        assert row["max_attempts"] - row["attempt"] == 5
        assert row["run_at"] - row["blocked_since"] > timedelta(seconds=40)
    job = (await client.get(f"/v1/jobs/{job_id}")).json()
    assert (job["state"], job["error"]["code"]) == ("queued", code)
    assert job["blocked_since"] is not None
    acting.act = acting.succeed
    async with working(worker_of(resources, {KIND: acting}, slow)):
        row = await settled(resources.database, job_id)
    assert (row["state"], row["blocked_since"], row["error"]) == ("succeeded", None, None)


async def test_a_waiting_job_is_tried_again_until_it_succeeds(
    resources: Resources, acting: Acting
) -> None:
    acting.act = raises(MisconfiguredError("no such model"))
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting})):
        await until(lambda: has_begun(acting, 6))
        row = await waits(resources, job_id)
        acting.act = acting.succeed
        row = await settled(resources.database, job_id)
    assert row["state"] == "succeeded"
    assert row["attempt"] >= 7


async def has_begun(acting: Acting, times: int) -> bool:
    return len(acting.jobs) >= times


async def test_a_request_does_not_wait_for_the_operator(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = raises(MisconfiguredError("The key is refused (401)."))
    slow = quick(resources.settings, job_backoff_seconds=60)
    async with working(worker_of(resources, {KIND: acting}, slow)):
        began = time.monotonic()
        response = await client.post("/v1/jobs/test", json={}, headers={"prefer": "wait=60"})
        assert time.monotonic() - began < 30
    assert response.status_code == 202
    assert response.json()["error"]["detail"] == "The key is refused (401)."


async def test_a_job_that_waits_can_be_cancelled(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = raises(MisconfiguredError("no such model"))
    slow = quick(resources.settings, job_backoff_seconds=60)
    job_id = await enqueue(resources)
    async with working(worker_of(resources, {KIND: acting}, slow)):
        await waits(resources, job_id)
    job = (await client.post(f"/v1/jobs/{job_id}/cancel")).json()
    assert (job["state"], job["blocked_since"]) == ("cancelled", None)


async def test_probes_metrics_and_doctor_report_jobs_that_wait(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async def act(_run: JobRun) -> None:
        raise MisconfiguredError("The key is refused (401).")

    acting.act = act
    slow = quick(resources.settings, job_backoff_seconds=60)
    job_ids = [await enqueue(resources) for _ in range(3)]
    async with working(worker_of(resources, {KIND: acting}, slow)):
        for job_id in job_ids:
            await waits(resources, job_id)
        queue: dict[str, Any] = (await client.get("/readyz")).json()["queue"]
        metrics = (await client.get("/metrics")).text
    assert (queue["blocked"], queue["pending"], queue["scheduled"]) == (3, 0, 0)
    assert "configuration" in queue["warning"]
    assert "memoryd_jobs_blocked 3.0" in metrics
    findings = await asyncio.to_thread(diagnose, resources.settings)
    [jobs] = [finding for finding in findings if finding.subject == "jobs"]
    assert not jobs.good
    assert jobs.detail.startswith("3 wait since ")
    assert jobs.detail.endswith("for the configuration: The key is refused (401).")
