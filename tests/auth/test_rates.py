"""A key's rates of requests and of jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, ANONYMOUS, Access, Grant, Rates, Verb
from app.auth.authenticator import RequestLimiter
from app.auth.errors import TooManyRequestsError
from app.auth.service import KeyService
from app.config import Settings
from app.db.database import Database
from app.jobs import repository
from app.main import create_app
from app.namespaces import ALL_ROOTS
from app.providers.embedder import FakeEmbedder
from tests.support.app import running
from tests.support.routes import call

NewKey = Callable[[Rates], Any]

CONSOLIDATE = {"namespace": ["users"], "strategy": "duplicates"}


@pytest.fixture
def new_key(keys: KeyService) -> NewKey:
    async def create(rates: Rates) -> dict[str, str]:
        token = await keys.create("k", root=(), grants=ALL_GRANTED, expires_at=None, rates=rates)
        return {"x-api-key": str(token)}

    return create


@pytest.fixture
async def limited(settings: Settings, embedder: FakeEmbedder) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server with default rates."""
    chosen = settings.model_copy(update={"requests_per_minute": 3, "jobs_per_minute": 1})
    async with running(create_app(chosen, embedder=embedder)) as client:
        yield client


def test_a_bucket_is_full_at_first_and_refilled_evenly() -> None:
    now = 0.0
    limiter = RequestLimiter(lambda: now)

    def wait() -> int:
        with pytest.raises(TooManyRequestsError, match="limit of 30 requests a minute") as refused:
            limiter.take("a", 30)
        return int(refused.value.headers["Retry-After"])

    for _ in range(30):
        limiter.take("a", 30)
    assert wait() == 2
    limiter.take("b", 30)
    now = 1.0
    assert wait() == 1
    now = 2.0
    limiter.take("a", 30)
    assert wait() == 2
    now = 1_000.0
    for _ in range(30):
        limiter.take("a", 30)
    assert wait() == 2


async def test_requests_of_any_kind_count(client: httpx2.AsyncClient, new_key: NewKey) -> None:
    headers = await new_key(Rates(requests=3))
    other = await new_key(Rates())
    assert (await call(client, "put_item", headers)).status_code == 204
    assert (await call(client, "get_job", headers)).status_code == 404
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json", **headers}
    assert (await client.post("/mcp", headers=accept, json=ping)).status_code == 200
    for refused in (
        await call(client, "call_tool", headers),
        await client.post("/mcp", headers=accept, json=ping),
    ):
        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert (await call(client, "put_item", other)).status_code == 204


async def test_probes_do_not_count(client: httpx2.AsyncClient, keys: KeyService) -> None:
    monitor = (Grant((), frozenset({Verb.METRICS, Verb.READ})),)
    rates = Rates(requests=1)
    token = await keys.create("k", root=(), grants=monitor, expires_at=None, rates=rates)
    headers = {"x-api-key": str(token)}
    for path in ("/readyz", "/metrics", "/readyz", "/metrics"):
        assert (await client.get(path, headers=headers)).status_code == 200
    assert (await call(client, "get_item", headers)).status_code == 200
    refused = await call(client, "get_item", headers)
    assert refused.status_code == 429
    assert "limit of 1 request a minute" in refused.json()["detail"]
    assert (await client.get("/readyz", headers=headers)).json()["queue"]


async def test_a_server_has_rates_for_keys_without_their_own(
    limited: httpx2.AsyncClient, new_key: NewKey
) -> None:
    plain, own = await new_key(Rates()), await new_key(Rates(requests=5, jobs=2))
    statuses = [(await call(limited, "list_prompts", plain)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    statuses = [(await call(limited, "list_prompts", own)).status_code for _ in range(6)]
    assert statuses == [200] * 5 + [429]


async def test_jobs_count_once_and_idempotent_replays_do_not(
    client: httpx2.AsyncClient, new_key: NewKey
) -> None:
    headers = await new_key(Rates(jobs=2))

    async def submit(key: str) -> httpx2.Response:
        return await client.post(
            "/v1/jobs/consolidate", headers={**headers, "idempotency-key": key}, json=CONSOLIDATE
        )

    for key in ("a", "a", "b", "a"):
        assert (await submit(key)).status_code == 202
    refused = await submit("c")
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("The key mk_")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    found = await client.get("/v1/jobs", headers=headers)
    assert len(found.json()["jobs"]) == 2


async def test_appending_counts_when_it_makes_a_job(
    client: httpx2.AsyncClient, new_key: NewKey
) -> None:
    headers = await new_key(Rates(jobs=1))

    async def append(thread: str) -> int:
        body = {
            "manager_config": {"strategy": "verbatim"},
            "namespace": ["users"],
            "messages": [["user", "Hello"]],
        }
        path = f"/v1/threads/{thread}/messages"
        return (await client.post(path, headers=headers, json=body)).status_code

    assert [await append("one"), await append("one"), await append("two")] == [202, 202, 429]
    assert (await client.get("/v1/threads/two", headers=headers)).status_code == 404


async def test_concurrent_submissions_share_one_bucket(database: Database) -> None:
    access = Access("mk_a", ALL_ROOTS, ANONYMOUS.grants, jobs_per_minute=5)

    async def submit() -> bool:
        try:
            async with database.transaction(ALL_ROOTS) as connection:
                await repository.take_tokens(connection, access)
        except TooManyRequestsError:
            return False
        return True

    assert sum(await asyncio.gather(*(submit() for _ in range(12)))) == 5
    async with database.transaction(ALL_ROOTS) as connection:
        await repository.take_tokens(connection, replace(access, actor="mk_b"))
        await connection.execute("UPDATE job_rates SET updated_at = updated_at - interval '25s'")
    assert [await submit() for _ in range(3)] == [True, True, False]


async def test_jobs_that_are_retried_together_count_each(
    client: httpx2.AsyncClient, new_key: NewKey
) -> None:
    owner, headers = await new_key(Rates()), await new_key(Rates(jobs=3))
    for _ in range(5):
        job = await client.post("/v1/jobs/consolidate", headers=owner, json=CONSOLIDATE)
        await client.post(f"/v1/jobs/{job.json()['id']}/cancel", headers=owner)

    async def retry(**body: Any) -> tuple[int, Any]:
        asked = {"state": "cancelled", **body}
        response = await client.post("/v1/jobs/retry", headers=headers, json=asked)
        return response.status_code, response.json()

    assert await retry(limit=1) == (200, {"retried": 1, "has_more": True})
    assert await retry() == (200, {"retried": 2, "has_more": True})
    status, problem = await retry()
    assert (status, problem["code"]) == (429, "rate_limited")
    queued = await client.get("/v1/jobs?state=queued", headers=owner)
    assert len(queued.json()["jobs"]) == 3
