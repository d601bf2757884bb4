import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.jobs.run import JobRun
from app.resources import Resources
from tests.support.jobs import KIND, Acting, enqueue, hang, run_jobs, until, worker_of, working

pytestmark = pytest.mark.slow  # each waits for workers or models

Event = dict[str, Any]


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Yield the events of a stream as their fields."""
    event: Event = {}
    async for line in lines:
        name, _, text = line.partition(": ")
        if line and not line.startswith(":"):
            event[name] = json.loads(text) if name == "data" else text
        elif event:
            yield event
            event = {}


async def followed(
    client: httpx2.AsyncClient, job_id: str, last_event_id: str | None = None
) -> list[Event]:
    """Follow a job to its end."""
    headers = {} if last_event_id is None else {"last-event-id": last_event_id}
    async with asyncio.timeout(20):
        response = await client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")

    async def lines() -> AsyncIterator[str]:
        for line in response.text.splitlines():
            yield line

    return [event async for event in events(lines())]


@pytest.fixture
async def ended(resources: Resources, acting: Acting) -> str:
    """A job that reported two steps and succeeded."""

    async def act(run: JobRun) -> None:
        await run.report("retrieved", items=3)
        await run.report("asked", model="x")
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    return job_id


async def test_a_job_that_ended_is_told_from_beginning_to_end(
    client: httpx2.AsyncClient, ended: str
) -> None:
    found = await followed(client, ended)
    assert [event["id"] for event in found] == ["1", "2", "3", "4", "5"]
    assert [event["event"] for event in found] == [
        "queued",
        "running",
        "retrieved",
        "asked",
        "succeeded",
    ]
    assert [event["data"]["event"] for event in found] == [event["event"] for event in found]
    queued, *others = [event["data"]["data"] for event in found]
    assert queued.keys() == {"run_at"}
    assert others == [{}, {"items": 3}, {"model": "x"}, {}]
    moments = [event["data"]["at"] for event in found]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("last", "rest"), [("0", 5), ("2", 3), ("4", 1), ("5", 0), ("77", 0), ("999999999", 0)]
)
async def test_a_stream_resumes_after_the_last_event(
    client: httpx2.AsyncClient, ended: str, last: str, rest: int
) -> None:
    found = await followed(client, ended, last)
    assert [event["id"] for event in found] == ["1", "2", "3", "4", "5"][5 - rest :]


@pytest.mark.parametrize("last", ["", "soon", "-1", "1.5", "9" * 30, "\xb2", " "])
async def test_a_last_event_that_is_no_number_is_ignored(
    client: httpx2.AsyncClient, ended: str, last: str
) -> None:
    headers = {b"last-event-id": last.encode("latin-1")}
    response = await client.get(f"/v1/jobs/{ended}/events", headers=headers)
    assert response.text.count("\ndata:") + response.text.startswith("data:") == 5


@pytest.mark.parametrize("job_id", ["job_0", "%00", "%F0%9F%90%98", "a%2Fb"])
async def test_a_job_that_is_not_there_is_a_404_and_no_stream(
    client: httpx2.AsyncClient, job_id: str
) -> None:
    response = await client.get(f"/v1/jobs/{job_id}/events")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_running_job_is_followed_as_it_goes(
    streaming: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    steps: asyncio.Queue[str] = asyncio.Queue()

    async def act(run: JobRun) -> None:
        while (step := await steps.get()) != "end":
            await run.report(step)
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    async with streaming.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        told = events(response.aiter_lines())
        assert (await anext(told))["event"] == "queued"
        async with working(worker_of(resources, {KIND: acting})), asyncio.timeout(20):
            assert (await anext(told))["event"] == "running"
            for step in ("first", "second", "third"):
                steps.put_nowait(step)
                assert (await anext(told))["event"] == step
            steps.put_nowait("end")
            assert [event["event"] async for event in told] == ["succeeded"]


async def test_followers_and_waiters_outlast_lost_connections(
    streaming: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await acting.succeed(run)

    acting.act = act
    async with working(worker_of(resources, {KIND: acting})), asyncio.timeout(30):
        waiting = asyncio.create_task(
            streaming.post("/v1/jobs/test", json={}, headers={"prefer": "wait=20"})
        )
        await until(lambda: _begun(acting))
        job_id = acting.jobs[0].id
        async with streaming.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            told = events(response.aiter_lines())
            assert [(await anext(told))["event"] for _ in range(2)] == ["queued", "running"]
            for _ in range(3):
                await end_connections(resources)
                await asyncio.sleep(0.1)
            go_on.set()
            assert [event["event"] async for event in told] == ["succeeded"]
        answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert acting.attempts == [(job_id, 1)]


async def _begun(acting: Acting) -> bool:
    return bool(acting.jobs)


async def end_connections(resources: Resources) -> None:
    """End every connection to the database but the one that says so."""
    async with resources.database.connection("") as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )


async def test_a_follower_who_leaves_costs_nothing(
    streaming: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    acting.act = hang
    job_id = await enqueue(resources)
    for _ in range(20):
        async with streaming.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            assert (await anext(events(response.aiter_lines())))["event"] == "queued"
    assert (await streaming.get("/readyz")).json()["queue"]["pending"] == 1


async def test_many_events_arrive_whole(
    client: httpx2.AsyncClient, resources: Resources, acting: Acting
) -> None:
    async def act(run: JobRun) -> None:
        for n in range(600):
            await run.report("step", n=n)
        await acting.succeed(run)

    acting.act = act
    job_id = await enqueue(resources)
    await run_jobs(resources, {KIND: acting})
    found = await followed(client, job_id)
    assert [int(event["id"]) for event in found] == list(range(1, 604))
