"""Jobs are followed by their events."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from app.jobs.kind import JobRun
from tests.support.jobs import Jobs

pytestmark = pytest.mark.slow  # each waits for workers

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


async def follow(jobs: Jobs, job_id: str, last: bytes | None = None) -> list[Event]:
    """Follow a job to its end."""
    headers = {} if last is None else {b"last-event-id": last}
    async with asyncio.timeout(20):
        response = await jobs.client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")

    async def lines() -> AsyncIterator[str]:
        for line in response.text.splitlines():
            yield line

    return [event async for event in events(lines())]


@pytest.fixture
async def ended(jobs: Jobs) -> str:
    """A job that reported two steps and succeeded."""

    async def act(run: JobRun) -> None:
        await run.report("retrieved", items=3)
        await run.report("asked", model="x")
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    return str((await jobs.done())["id"])


async def test_the_events_of_an_ended_job_are_complete(jobs: Jobs, ended: str) -> None:
    found = await follow(jobs, ended)
    assert [event["id"] for event in found] == ["1", "2", "3", "4", "5"]
    names = ["queued", "running", "retrieved", "asked", "succeeded"]
    assert [event["event"] for event in found] == names
    assert [event["data"]["event"] for event in found] == names
    queued, *others = [event["data"]["data"] for event in found]
    assert queued.keys() == {"run_at"}
    assert others == [{}, {"items": 3}, {"model": "x"}, {}]
    moments = [event["data"]["at"] for event in found]
    assert moments == sorted(moments)


async def test_a_stream_resumes_after_the_last_event(jobs: Jobs, ended: str) -> None:
    for last, rest in [(b"0", 5), (b"2", 3), (b"5", 0), (b"77", 0), (b"999999999", 0)]:
        found = await follow(jobs, ended, last)
        assert [event["id"] for event in found] == ["1", "2", "3", "4", "5"][5 - rest :]
    for ignored in (b"", b"soon", b"-1", b"1.5", b"9" * 30, b"\xb2", b" "):
        assert len(await follow(jobs, ended, ignored)) == 5


async def test_a_running_job_is_followed_as_it_goes(
    streaming: httpx2.AsyncClient, jobs: Jobs
) -> None:
    steps: asyncio.Queue[str] = asyncio.Queue()

    async def act(run: JobRun) -> None:
        while (step := await steps.get()) != "end":
            await run.report(step)
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    job_id = await jobs.submit()
    async with streaming.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        seen = events(response.aiter_lines())
        assert (await anext(seen))["event"] == "queued"
        async with jobs.working(), asyncio.timeout(20):
            assert (await anext(seen))["event"] == "running"
            for step in ("first", "second", "third"):
                steps.put_nowait(step)
                assert (await anext(seen))["event"] == step
            steps.put_nowait("end")
            assert [event["event"] async for event in seen] == ["succeeded"]


async def test_followers_and_waiters_survive_lost_connections(
    streaming: httpx2.AsyncClient, jobs: Jobs
) -> None:
    go_on = asyncio.Event()

    async def act(run: JobRun) -> None:
        await go_on.wait()
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    async with jobs.working(), asyncio.timeout(30):
        waiting = asyncio.create_task(
            streaming.post("/v1/jobs/test", json={}, headers={"prefer": "wait=20"})
        )
        await jobs.started()
        job_id = jobs.handler.jobs[0].id
        async with streaming.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            seen = events(response.aiter_lines())
            assert [(await anext(seen))["event"] for _ in range(2)] == ["queued", "running"]
            for _ in range(3):
                await jobs.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend'"
                )
                await asyncio.sleep(0.1)
            go_on.set()
            assert [event["event"] async for event in seen] == ["succeeded"]
        answer = await waiting
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert jobs.handler.attempts == [(job_id, 1)]


async def test_many_events_arrive_whole(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        for n in range(250):
            await run.report("step", n=n)
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    found = await follow(jobs, (await jobs.done())["id"])
    assert [int(event["id"]) for event in found] == list(range(1, 254))


async def test_the_data_of_an_event_is_bounded(jobs: Jobs) -> None:
    async def act(run: JobRun) -> None:
        await run.report("large", text="x" * 100_000)
        await jobs.handler.succeed(run)

    jobs.handler.act = act
    await jobs.done()
    [event] = await jobs.sql("SELECT data FROM job_events WHERE event = 'large'")
    assert json.loads(event["data"]) == {"omitted_bytes": 100_012}
