from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.jobs.kind import JobFailedError
from tests.support.jobs import Jobs, raises

pytestmark = pytest.mark.slow  # each waits for workers


async def listed(jobs: Jobs, **query: Any) -> Any:
    return await jobs.call("GET", "/v1/jobs", params=query)


def ids(page: Any) -> list[str]:
    return [job["id"] for job in page["jobs"]]


async def test_jobs_are_listed_newest_first_page_by_page(jobs: Jobs) -> None:
    submitted = sorted([await jobs.submit() for _ in range(7)], reverse=True)
    assert ids(await listed(jobs)) == submitted
    assert (await listed(jobs, limit=7))["next_cursor"] is None
    found: list[str] = []
    cursor: dict[str, str] = {}
    for size in (3, 3, 1):
        page = await listed(jobs, limit=3, **cursor)
        assert len(page["jobs"]) == size
        found += ids(page)
        cursor = {"cursor": page["next_cursor"]}
        await jobs.submit()  # shifts no page
    assert found == submitted
    assert page["next_cursor"] is None


async def test_jobs_are_found_by_state_kind_thread_and_namespace(jobs: Jobs) -> None:
    jobs.handler.script.append(raises(JobFailedError("x", "It cannot be.")))
    failed = await jobs.submit(["users", "alice"])
    await jobs.run()
    succeeded = await jobs.submit(["users", "alice"], thread_id="t1")
    await jobs.run()
    other = await jobs.submit(["users", "bob"], kind="other")
    dotted = await jobs.submit(["users", "a.b"])
    for query, expected in [
        ({"state": "failed"}, {failed}),
        ({"state": "cancelled"}, set()),
        ({"kind": "other"}, {other}),
        ({"thread_id": "t1"}, {succeeded}),
        ({"namespace": "users.alice"}, {failed, succeeded}),
        ({"namespace": '["users", "a.b"]'}, {dotted}),
        ({"namespace": "user"}, set()),
        ({"namespace": "users.alice", "state": "failed"}, {failed}),
    ]:
        assert set(ids(await listed(jobs, **query))) == expected
    [job] = (await listed(jobs, state="failed"))["jobs"]
    assert job | {"result": None} == await jobs.get(failed)


async def test_an_invalid_parameter_is_named(jobs: Jobs) -> None:
    for field, values in {
        "limit": ["0", "201", "many"],
        "state": ["done"],
        "kind": ["x" * 65, "a\x00"],
        "thread_id": ["a\x00"],
        "cursor": ["a\x00", "x" * 65],
        "namespace": ["a..b"],
        "sort": ["id"],
    }.items():
        for value in values:
            problem = await jobs.call("GET", "/v1/jobs", status=422, params={field: value})
            assert [error["field"] for error in problem["errors"]] == [field]


ROUTES = [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")]


@pytest.mark.parametrize(("method", "rest"), ROUTES)
async def test_an_unknown_job_is_not_found(jobs: Jobs, method: str, rest: str) -> None:
    for job_id in ("job_0", "%00", "job_%F0%9F%90%98", "x" * 5_000):
        response = await jobs.client.request(method, f"/v1/jobs/{job_id}{rest}")
        assert (response.status_code, response.json()["code"]) == (404, "job_not_found")
        assert response.headers["content-type"] == "application/problem+json"


JOBS = frozenset({Verb.JOBS})
BOB = (Grant(("users", "bob"), JOBS),)


async def headers_of(jobs: Jobs, clock: FrozenClock, root: list[str], grants: Any) -> Any:
    keys = KeyService(jobs.database, clock)
    token = await keys.create("key", root=root, grants=grants, expires_at=None)
    return {"x-api-key": str(token)}


@pytest.mark.parametrize(
    ("root", "grants", "status"),
    [
        (["acme2"], ALL_GRANTED, 404),
        (["acme"], (Grant((), frozenset(Verb) - JOBS),), 403),
        (["acme"], BOB, 404),
    ],
    ids=["another root", "no grant for jobs", "a grant elsewhere"],
)
async def test_a_stranger_sees_follows_and_stops_nothing(
    jobs: Jobs, clock: FrozenClock, root: list[str], grants: Any, status: int
) -> None:
    owner = await headers_of(jobs, clock, ["acme"], ALL_GRANTED)
    stranger = await headers_of(jobs, clock, root, grants)
    body = {"namespace": ["users", "alice"]}
    job = await jobs.call("POST", "/v1/jobs/test", status=202, json=body, headers=owner)
    for method, rest in ROUTES:
        path = f"/v1/jobs/{job['id']}{rest}"
        problem = await jobs.call(method, path, status=status, headers=stranger)
        assert problem["code"] == ("forbidden" if status == 403 else "job_not_found")
        await jobs.call(method, path, status=401)
    assert await jobs.call("GET", f"/v1/jobs/{job['id']}", headers=owner) == job
    if grants == ALL_GRANTED:
        page = await jobs.call("GET", "/v1/jobs", headers=stranger)
        assert page == {"jobs": [], "next_cursor": None}
    else:
        problem = await jobs.call("GET", "/v1/jobs", status=403, headers=stranger)
        assert problem["code"] == "forbidden"


async def test_a_grant_below_the_root_lists_its_own_part(jobs: Jobs, clock: FrozenClock) -> None:
    mine = await jobs.submit(["acme", "users", "bob"])
    await jobs.submit(["acme", "users", "alice"])
    headers = await headers_of(jobs, clock, ["acme"], BOB)
    page = await jobs.call("GET", "/v1/jobs", params={"namespace": "users.bob"}, headers=headers)
    assert ids(page) == [mine]
    assert page["jobs"][0]["namespace"] == ["users", "bob"]
    job = await jobs.call("GET", f"/v1/jobs/{mine}", headers=headers)
    assert job["namespace"] == ["users", "bob"]


async def test_a_job_keeps_the_rights_of_its_key(jobs: Jobs, clock: FrozenClock) -> None:
    grants = (Grant(("users",), frozenset({Verb.JOBS, Verb.READ})),)
    headers = await headers_of(jobs, clock, ["acme"], grants)
    await jobs.call("POST", "/v1/jobs/test", status=202, json={}, headers=headers)
    await jobs.run()
    [job] = jobs.handler.jobs
    assert (job.access.root, job.access.grants) == ("acme\x1f", grants)
    assert headers["x-api-key"].startswith(job.access.actor)


async def test_a_list_has_results_only_if_asked_and_within_its_bytes(jobs: Jobs) -> None:
    jobs.handler.act = lambda run: jobs.handler.succeed(run, text="x" * 1_500_000)
    submitted = sorted([await jobs.submit() for _ in range(5)], reverse=True)
    await jobs.run()
    page = await listed(jobs)
    assert ids(page) == submitted
    assert not any("result" in job for job in page["jobs"])
    page = await listed(jobs, include="result")
    assert ids(page) == submitted[:3], "4 MiB are reached with the third"
    assert {len(job["result"]["text"]) for job in page["jobs"]} == {1_500_000}
    rest = await listed(jobs, include="result", cursor=page["next_cursor"])
    assert ids(rest) == submitted[3:]
    assert rest["next_cursor"] is None
    assert len((await jobs.get(submitted[0]))["result"]["text"]) == 1_500_000
