import asyncio
from functools import partial
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database
from app.db.idempotency import delete_old_answers
from tests.support.jobs import Jobs
from tests.support.load import at_once


async def post(
    client: httpx2.AsyncClient, key: str, body: Any, headers: dict[str, str] | None = None
) -> httpx2.Response:
    sent = {"idempotency-key": key, **(headers or {})}
    return await client.post("/v1/jobs/test", json=body, headers=sent)


async def job_count(database: Database) -> int:
    async with database.connection("") as connection:
        return int(await connection.fetchval("SELECT count(*) FROM jobs"))


async def test_the_same_key_and_body_get_the_same_job(
    client: httpx2.AsyncClient, database: Database
) -> None:
    first, second = [await post(client, "k1", {"n": 1}) for _ in range(2)]
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    reused = await post(client, "k1", {"n": 2})
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_key_reused")
    assert await job_count(database) == 1
    await post(client, "K1", {"n": 1})
    for _ in range(2):
        assert (await client.post("/v1/jobs/test", json={"n": 1})).status_code == 202
    assert await job_count(database) == 4


async def test_a_replay_shows_the_current_state_of_the_job(jobs: Jobs) -> None:
    first = await post(jobs.client, "k1", {})
    async with jobs.working():
        second = await post(jobs.client, "k1", {}, {"prefer": "wait=10"})
    assert (second.status_code, second.json()["state"]) == (200, "succeeded")
    assert first.json()["id"] == second.json()["id"]
    third = await post(jobs.client, "k1", {})
    assert (third.status_code, third.json()) == (200, second.json())
    assert len(jobs.handler.jobs) == 1


async def test_equal_requests_at_once_make_one_job(
    client: httpx2.AsyncClient, database: Database
) -> None:

    async def same(n: int, _caller: int) -> httpx2.Response:
        return await post(client, f"k{n}", {"n": n})

    for n in range(5):
        answers = await at_once(8, partial(same, n))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
    assert await job_count(database) == 5


async def age(database: Database, by: str) -> None:
    async with database.connection("") as connection:
        await connection.execute(
            f"UPDATE idempotent_requests SET created_at = created_at - interval '{by}'"
        )


async def test_a_key_may_be_used_again_after_a_day(
    client: httpx2.AsyncClient, database: Database
) -> None:
    first = await post(client, "k1", {"n": 1})
    await age(database, "23 hours 59 minutes")
    assert (await post(client, "k1", {"n": 1})).json()["id"] == first.json()["id"]
    await age(database, "2 minutes")
    second = await post(client, "k1", {"n": 2})
    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]
    assert (await post(client, "k1", {"n": 2})).json()["id"] == second.json()["id"]


async def test_old_keys_are_deleted(client: httpx2.AsyncClient, database: Database) -> None:
    await post(client, "old", {})
    await age(database, "25 hours")
    await post(client, "new", {})
    async with database.transaction("") as connection:
        await delete_old_answers(connection)
        rows = await connection.fetch("SELECT key FROM idempotent_requests")
    assert [row["key"] for row in rows] == ["new"]


async def test_each_root_has_keys_of_its_own_which_its_api_keys_share(
    client: httpx2.AsyncClient, database: Database, clock: FrozenClock
) -> None:
    keys, jobs = KeyService(database, clock), []
    for root in (["acme"], ["acme"], ["acme2"], ["acme", "inner"]):
        token = await keys.create("key", root=root, grants=ALL_GRANTED, expires_at=None)
        answer = await post(client, "k1", {"n": root}, {"x-api-key": str(token)})
        assert answer.status_code == 202
        jobs.append(answer.json()["id"])
    assert jobs[0] == jobs[1]
    assert len(set(jobs)) == 3


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "schlüssel", "a\x7f"])
async def test_an_invalid_key_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    response = await client.post("/v1/jobs/test", json={}, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_request_takes_the_key_when_the_first_one_fails(
    client: httpx2.AsyncClient, database: Database
) -> None:
    async with database.connection("") as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO idempotent_requests "
            "(namespace, actor, key, fingerprint, answer, created_at) "
            "VALUES ('', 'anonymous', 'k1', 'another', 'null', now())"
        )
        waiting = asyncio.create_task(post(client, "k1", {}))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await transaction.rollback()
    assert (await waiting).status_code == 202


async def test_a_replay_needs_no_manager_that_was_deleted(
    client: httpx2.AsyncClient,
) -> None:
    path, headers = "/v1/jobs/extract", {"idempotency-key": "once"}
    await client.put("/v1/managers/notes", json={"strategy": "verbatim", "namespace": ["n"]})
    body = {"manager": "notes", "messages": [["user", "I love ramen."]]}
    first = await client.post(path, json=body, headers=headers)
    await client.delete("/v1/managers/notes")
    again = await client.post(path, json=body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert (await client.post(path, json=body)).status_code == 404
