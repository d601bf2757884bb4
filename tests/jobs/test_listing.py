import json
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database
from app.jobs.record import RECORD_COLUMNS
from app.jobs.run import JobFailedError, JobRun
from app.resources import Resources
from tests.support.jobs import KIND, Acting, enqueue, new_job, raises, run_jobs

pytestmark = pytest.mark.slow  # a request and a database each


async def listed(client: httpx2.AsyncClient, **query: Any) -> Any:
    response = await client.get("/v1/jobs", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def ids(page: Any) -> list[str]:
    return [job["id"] for job in page["jobs"]]


async def test_jobs_are_listed_newest_first_page_by_page(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    submitted = sorted([await enqueue(resources) for _ in range(7)], reverse=True)
    assert ids(await listed(client)) == submitted
    assert (await listed(client))["next_cursor"] is None
    found: list[str] = []
    cursor: dict[str, str] = {}
    for size in (3, 3, 1):
        page = await listed(client, limit=3, **cursor)
        assert len(page["jobs"]) == size
        found += ids(page)
        cursor = {"cursor": page["next_cursor"]}
    assert found == submitted
    assert page["next_cursor"] is None
    assert (await listed(client, limit=7))["next_cursor"] is None


async def test_a_job_submitted_meanwhile_shifts_no_page(
    client: httpx2.AsyncClient, resources: Resources
) -> None:
    submitted = sorted([await enqueue(resources) for _ in range(4)], reverse=True)
    page = await listed(client, limit=2)
    await enqueue(resources)
    rest = await listed(client, limit=2, cursor=page["next_cursor"])
    assert ids(page) + ids(rest) == submitted


async def test_jobs_are_found_by_state_kind_thread_and_namespace(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.script.append(raises(JobFailedError("x", "It cannot be.")))
    failed = await enqueue(resources, new_job(["users", "alice"]))
    await run_jobs(resources, {KIND: acting})
    succeeded = await enqueue(resources, new_job(["users", "alice"], thread_id="t1"))
    await run_jobs(resources, {KIND: acting})
    other = await enqueue(resources, new_job(["users", "bob"], kind="other"))
    dotted = await enqueue(resources, new_job(["users", "a.b"]))
    assert ids(await listed(client, state="failed")) == [failed]
    assert ids(await listed(client, state="cancelled")) == []
    assert ids(await listed(client, kind="other")) == [other]
    assert ids(await listed(client, thread_id="t1")) == [succeeded]
    assert set(ids(await listed(client, namespace="users.alice"))) == {failed, succeeded}
    assert ids(await listed(client, namespace='["users", "a.b"]')) == [dotted]
    assert ids(await listed(client, namespace="user")) == []
    assert ids(await listed(client, namespace="users.alice", state="failed")) == [failed]
    [job] = (await listed(client, state="failed"))["jobs"]
    assert job | {"result": None} == (await client.get(f"/v1/jobs/{failed}")).json()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "201"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"state": "done"}, "state"),
        ({"kind": "x" * 65}, "kind"),
        ({"kind": "a\x00"}, "kind"),
        ({"thread_id": "a\x00"}, "thread_id"),
        ({"cursor": "a\x00"}, "cursor"),
        ({"cursor": "x" * 65}, "cursor"),
        ({"namespace": "a..b"}, "namespace"),
        ({"sort": "id"}, "sort"),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_named(
    client: httpx2.AsyncClient, query: dict[str, str], field: str
) -> None:
    response = await client.get("/v1/jobs", params=query)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("job_id", ["job_0", "%00", "job_%F0%9F%90%98", "x" * 5_000])
@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("POST", "/cancel"), ("POST", "/retry")])
async def test_a_job_that_is_not_there_is_a_404(
    client: httpx2.AsyncClient, method: str, rest: str, job_id: str
) -> None:
    response = await client.request(method, f"/v1/jobs/{job_id}{rest}")
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


@pytest.fixture
async def strangers(
    client: httpx2.AsyncClient, database: Database, clock: FrozenClock
) -> dict[str, dict[str, str]]:
    """Headers of keys that have no business with the jobs of acme's alice."""
    keys, headers = KeyService(database, clock), {}
    jobs = frozenset({Verb.JOBS})
    for name, root, grants in (
        ("another root", ["acme2"], ALL_GRANTED),
        ("a root inside", ["acme", "users", "bob"], ALL_GRANTED),
        ("no grant for jobs", ["acme"], (Grant((), frozenset(Verb) - jobs),)),
        ("a grant elsewhere", ["acme"], (Grant(("users", "bob"), jobs),)),
    ):
        token = await keys.create(name, root=root, grants=grants, expires_at=None)
        headers[name] = {"x-api-key": str(token)}
    return headers


@pytest.mark.parametrize(
    "who", ["another root", "a root inside", "no grant for jobs", "a grant elsewhere"]
)
async def test_a_stranger_sees_follows_and_stops_nothing(
    client: httpx2.AsyncClient,
    resources: Resources,
    clock: FrozenClock,
    strangers: dict[str, dict[str, str]],
    who: str,
) -> None:
    keys = KeyService(resources.database, clock)
    token = await keys.create("acme", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    owner = {"x-api-key": str(token)}
    response = await client.post(
        "/v1/jobs/test", json={"namespace": ["users", "alice"]}, headers=owner
    )
    job = response.json()
    for method, rest in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        path = f"/v1/jobs/{job['id']}{rest}"
        response = await client.request(method, path, headers=strangers[who])
        refused = (403, "forbidden") if who == "no grant for jobs" else (404, "job_not_found")
        assert (response.status_code, response.json()["code"]) == refused
        assert (await client.request(method, path)).status_code == 401
    assert (await client.get(f"/v1/jobs/{job['id']}", headers=owner)).json() == job
    response = await client.get("/v1/jobs", headers=strangers[who])
    if "root" in who:
        assert response.json() == {"jobs": [], "next_cursor": None}
    else:
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


async def test_a_grant_below_the_root_lists_its_own_part(
    client: httpx2.AsyncClient, resources: Resources, strangers: dict[str, dict[str, str]]
) -> None:
    mine = await enqueue(resources, new_job(["acme", "users", "bob"]))
    await enqueue(resources, new_job(["acme", "users", "alice"]))
    headers = strangers["a grant elsewhere"]
    response = await client.get("/v1/jobs", params={"namespace": "users.bob"}, headers=headers)
    assert ids(response.json()) == [mine]
    assert response.json()["jobs"][0]["namespace"] == ["users", "bob"]
    job = (await client.get(f"/v1/jobs/{mine}", headers=headers)).json()
    assert job["namespace"] == ["users", "bob"]


async def test_a_job_keeps_the_rights_of_the_key_that_submitted_it(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting, clock: FrozenClock
) -> None:
    grants = (Grant(("users",), frozenset({Verb.JOBS, Verb.READ})),)
    keys = KeyService(resources.database, clock)
    token = await keys.create("acme", root=["acme"], grants=grants, expires_at=None)
    await client.post("/v1/jobs/test", json={}, headers={"x-api-key": str(token)})
    await run_jobs(resources, {KIND: acting})
    [job] = acting.jobs
    assert (job.access.actor, job.access.root) == (f"mk_{token.id}", "acme\x1f")
    assert job.access.grants == grants


async def test_a_list_has_results_only_if_asked_and_no_more_than_its_bytes(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = lambda run: acting.succeed(run, text="x" * 1_500_000)
    submitted = sorted([await enqueue(resources) for _ in range(5)], reverse=True)
    await run_jobs(resources, {KIND: acting})
    page = await listed(client)
    assert ids(page) == submitted
    assert not any("result" in job for job in page["jobs"])
    page = await listed(client, include="result")
    assert ids(page) == submitted[:3], "4 MiB are reached with the third"
    assert {len(job["result"]["text"]) for job in page["jobs"]} == {1_500_000}
    rest = await listed(client, include="result", cursor=page["next_cursor"])
    assert ids(rest) == submitted[3:]
    assert rest["next_cursor"] is None
    found = (await client.get(f"/v1/jobs/{submitted[0]}")).json()
    assert len(found["result"]["text"]) == 1_500_000


def test_a_list_reads_neither_results_nor_requests() -> None:
    """They are stored apart from the row, and read only if they are named."""
    assert "result" not in RECORD_COLUMNS
    assert "request" not in RECORD_COLUMNS.replace("cancel_requested", "")


async def test_what_a_job_reports_is_bounded(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        await run.report("large", text="x" * 100_000)
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    async with resources.database.connection("") as connection:
        data = await connection.fetchval("SELECT data FROM job_events WHERE event = 'large'")
    assert json.loads(data) == {"omitted_bytes": 100_012}
    assert job_id
