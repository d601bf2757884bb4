"""POST /v1/jobs/retry: many failed or cancelled jobs are queued again."""

from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.jobs.run import JobFailedError
from app.resources import Resources
from tests.support.jobs import KIND, Acting, enqueue, job_row, new_job, raises, run_jobs

pytestmark = pytest.mark.slow  # each waits for workers


async def retry(client: httpx2.AsyncClient, status: Any = 200, **body: Any) -> Any:
    headers = body.pop("headers", {})
    response = await client.post("/v1/jobs/retry", json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def failed(
    resources: Resources, acting: Acting, number: int, code: str = "odd", **of: Any
) -> list[str]:
    acting.act = raises(JobFailedError(code, "It cannot be."))
    job_ids = [await enqueue(resources, new_job(**of)) for _ in range(number)]
    await run_jobs(resources, {KIND: acting})
    acting.act = acting.succeed
    return job_ids


async def queued(resources: Resources, job_ids: list[str]) -> list[bool]:
    rows = [await job_row(resources.database, job_id) for job_id in job_ids]
    return [row["state"] == "queued" for row in rows]


async def test_all_that_failed_is_queued_again_and_done(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_ids = await failed(resources, acting, 40)
    await run_jobs(resources, {KIND: acting})
    assert await retry(client) == {"retried": 40, "has_more": False}
    await run_jobs(resources, {KIND: acting})
    rows = [await job_row(resources.database, job_id) for job_id in job_ids]
    assert {(row["state"], row["attempt"], row["error"]) for row in rows} == {
        ("succeeded", 2, None)
    }
    assert await retry(client) == {"retried": 0, "has_more": False}


async def test_only_the_selected_jobs_are_retried(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    alice = await failed(resources, acting, 1, labels=["users", "alice"])
    bob = await failed(resources, acting, 1, "other", labels=["users", "bob"])
    cancelled = [await enqueue(resources)]
    await client.post(f"/v1/jobs/{cancelled[0]}/cancel")
    created = (await client.get(f"/v1/jobs/{bob[0]}")).json()["created_at"]
    for selection in (
        {"namespace": ["users", "carol"]},
        {"kind": "extract"},
        {"error_code": "worker_lost"},
        {"created_after": "2999-01-01T00:00:00Z"},
        {"created_before": "2000-01-01T00:00:00Z"},
        {"namespace": ["users", "bob"], "error_code": "odd"},
    ):
        assert await retry(client, **selection) == {"retried": 0, "has_more": False}
    assert (await retry(client, created_before=created))["retried"] == 1
    assert await queued(resources, [*alice, *bob]) == [True, False]
    selected = {"namespace": ["users", "bob"], "kind": KIND, "error_code": "other"}
    assert (await retry(client, **selected, created_after=created))["retried"] == 1
    assert await queued(resources, [*bob, *cancelled]) == [True, False]
    assert (await retry(client, state="cancelled"))["retried"] == 1
    assert await queued(resources, cancelled) == [True]


async def test_one_call_is_bounded(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    job_ids = await failed(resources, acting, 5)
    assert await retry(client, limit=3) == {"retried": 3, "has_more": True}
    assert await queued(resources, job_ids) == [True, True, True, False, False]
    assert await retry(client, limit=3) == {"retried": 2, "has_more": False}
    problem = await retry(client, 422, limit=1001)
    assert problem["errors"][0]["field"] == "limit"


async def test_only_jobs_that_the_key_may_see_are_retried(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, clock: FrozenClock
) -> None:
    keys = KeyService(resources.database, clock)
    jobs_of_alice = (Grant(("users", "alice"), frozenset({Verb.JOBS})),)
    alice = await keys.create("alice", root=[], grants=jobs_of_alice, expires_at=None)
    stranger = await keys.create("acme", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    job_ids = await failed(resources, acting, 2, labels=["users", "bob"])
    job_ids += await failed(resources, acting, 2, labels=["users", "alice"])
    assert (await retry(client, headers={"x-api-key": str(stranger)}))["retried"] == 0
    for namespace in ([], ["users"], ["users", "bob"]):
        headers = {"x-api-key": str(alice)}
        assert (await retry(client, 403, namespace=namespace, headers=headers))["code"] == (
            "forbidden"
        )
    found = await retry(client, namespace=["users", "alice"], headers={"x-api-key": str(alice)})
    assert found["retried"] == 2
    assert await queued(resources, job_ids) == [False, False, True, True]
