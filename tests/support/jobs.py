"""Jobs in tests: a kind of job that does what a test says, and workers that do it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeAlias

import httpx2
from asyncpg import Record
from fastapi import APIRouter, FastAPI, Request, Response

from app.auth.access import ANONYMOUS, Access, Verb
from app.auth.dependencies import GuardedRoute, JobsAccess
from app.config import Settings
from app.db.database import ALL_ROOTS, Database
from app.db.notifier import CHANGED
from app.jobs import queue, repository
from app.jobs.kind import JobKind, JobPlan, JobRun, RunJob
from app.jobs.record import RECORD_COLUMNS, SETTLED, ClaimedJob, NewJob, State
from app.jobs.responses import submit
from app.jobs.schemas import Job
from app.jobs.service import JobService
from app.jobs.worker import JobWorker
from app.main import create_app
from app.namespaces import to_stored
from app.resources import Resources

KIND = "test"
PATIENCE = 20.0

Act: TypeAlias = Callable[[JobRun], Awaitable[None]]


class TestPlan(JobPlan, extra="allow"):
    """What a test asks for."""

    job_kind = KIND


async def _plan(_resources: Resources, access: Access, body: dict[str, Any]) -> NewJob:
    namespace = access.authorize(body.pop("namespace", ["users"]), Verb.JOBS)
    key = namespace if body.pop("one_at_a_time", False) else None
    delay = body.pop("delay_seconds", 0.0)
    return TestPlan(**body).new_job(namespace, concurrency_key=key, delay_seconds=delay)


def _no_handler(resources: Resources) -> Any:
    raise NotImplementedError  # tests give workers handlers of their own


TEST = JobKind(TestPlan, _no_handler, plan=_plan)


class ScriptedHandler:
    """A handler that does what `script` holds, job by job, and then `act` for every job."""

    def __init__(self, database: Database, act: Act | None = None) -> None:
        self.script: deque[Act] = deque()
        self.jobs: list[ClaimedJob] = []
        self.act = act or self.succeed
        self._database = database

    async def __call__(self, run: JobRun) -> None:
        self.jobs.append(run.job)
        act = self.script.popleft() if self.script else self.act
        await act(run)

    async def succeed(self, run: JobRun, state: State = State.SUCCEEDED, **result: Any) -> None:
        """End the job as a handler should, with nothing written beside it."""
        async with self._database.transaction(run.job.access.root) as connection:
            await run.finish(connection, result, state)

    @property
    def attempts(self) -> list[tuple[str, int]]:
        """The jobs that were begun, in order, and which attempt it was."""
        return [(job.id, job.attempt) for job in self.jobs]


def raises(error: BaseException) -> Act:
    async def act(_run: JobRun) -> None:
        raise error

    return act


async def hang(_run: JobRun) -> None:
    await asyncio.Event().wait()


def quick(settings: Settings, **chosen: Any) -> Settings:
    """Return settings under which attempts and leases pass quickly."""
    return settings.model_copy(
        update={
            "job_attempts": 5,
            "job_backoff_seconds": 0.005,
            "job_lease_seconds": 0.9,
            "drain_seconds": 2.0,
        }
        | chosen
    )


def worker_of(
    resources: Resources, handlers: Mapping[str, RunJob], settings: Settings | None = None
) -> JobWorker:
    chosen = replace(resources, settings=settings or resources.settings)
    return JobWorker.build(chosen, handlers)


@asynccontextmanager
async def working(*workers: JobWorker) -> AsyncIterator[None]:
    """Let workers work until the end of the block; then they drain."""
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def run_jobs(
    resources: Resources, handlers: Mapping[str, RunJob], settings: Settings | None = None
) -> None:
    """Do every job that can be started now, their further attempts included."""
    async with working(worker_of(resources, handlers, settings)):
        await until(lambda: _is_done(resources.database))


async def _is_done(database: Database) -> bool:
    async with database.connection(ALL_ROOTS) as connection:
        state = await queue.read_state(connection, 60)
    return state.pending == state.running == 0


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - the database would not tell
            await asyncio.sleep(0.01)


async def listening(resources: Resources) -> None:
    """Wait until the process hears news of the database."""
    with resources.notifier.subscribed(CHANGED, "test") as news:

        async def heard() -> bool:
            async with resources.database.connection(ALL_ROOTS) as connection:
                await connection.execute("SELECT pg_notify($1, 'test')", CHANGED)
            return news.is_set()

        await until(heard)


def new_job(
    labels: list[str] | None = None, *, concurrency_key: str | None = None, **more: Any
) -> NewJob:
    """Return a job about a namespace, `["users"]` if none is given."""
    fields: dict[str, Any] = {"kind": KIND, "request": {}, **more}
    namespace = to_stored(labels or ["users"])
    return NewJob(namespace=namespace, concurrency_key=concurrency_key, **fields)


async def enqueue(
    resources: Resources, new: NewJob | None = None, access: Access = ANONYMOUS, **more: Any
) -> str:
    """Submit a job in a transaction of its own; return its id."""
    async with resources.database.transaction(access.root) as connection:
        return await JobService.build(resources).create(
            connection, access, new or new_job(), **more
        )


async def job_row(database: Database, job_id: str) -> Record:
    """Return a job's row with its usage of models."""
    async with database.connection(ALL_ROOTS) as connection:
        row = await connection.fetchrow(
            f"SELECT {RECORD_COLUMNS}, root, grants, request, isolated, result, usage.* "
            f"FROM jobs, LATERAL ({repository.USAGE}) AS usage WHERE id = $1",
            job_id,
        )
    assert row is not None
    return row


async def settled(database: Database, job_id: str, seconds: float = PATIENCE) -> Record:
    """Return a job's row once no worker changes it any more."""
    return await in_state(database, job_id, *SETTLED, seconds=seconds)


async def in_state(
    database: Database, job_id: str, *states: State, seconds: float = PATIENCE
) -> Record:
    """Return a job's row once it is in one of the states."""

    async def reached() -> bool:
        return (await job_row(database, job_id))["state"] in states

    await until(reached, seconds)
    return await job_row(database, job_id)


async def events_of(database: Database, job_id: str) -> list[str]:
    """Return what a job reported, in order."""
    async with database.connection(ALL_ROOTS) as connection:
        return [event.event for event in await repository.find_events(connection, job_id, 0)]


class Jobs:
    """A server and its jobs of the kind `test`, which `handler` does while a worker runs."""

    def __init__(self, client: httpx2.AsyncClient, resources: Resources) -> None:
        self.client = client
        self.resources = resources
        self.database = resources.database
        self.handler = ScriptedHandler(resources.database)

    async def submit(self, labels: list[str] | None = None, **fields: Any) -> str:
        """Submit a job in a transaction of its own; return its id."""
        access = fields.pop("access", ANONYMOUS)
        return await enqueue(self.resources, new_job(labels, **fields), access)

    def worker(self, **settings: Any) -> JobWorker:
        """Return a worker that does the jobs; settings replace those of the server."""
        chosen = self.resources.settings.model_copy(update=settings)
        return worker_of(self.resources, {KIND: self.handler}, chosen)

    @asynccontextmanager
    async def working(self, workers: int = 1, **settings: Any) -> AsyncIterator[None]:
        """Let workers work until the end of the block; then they drain."""
        async with working(*(self.worker(**settings) for _ in range(workers))):
            yield

    async def run(self, **settings: Any) -> None:
        """Do every job that can be started now."""
        chosen = self.resources.settings.model_copy(update=settings)
        await run_jobs(self.resources, {KIND: self.handler}, chosen)

    async def done(self, job_id: str | None = None, **settings: Any) -> Record:
        """Do a job, a new one if none is given, with all its attempts; return its row."""
        job_id = job_id or await self.submit()
        async with self.working(**settings):
            return await self.settled(job_id)

    async def row(self, job_id: str) -> Record:
        return await job_row(self.database, job_id)

    async def settled(self, job_id: str, seconds: float = PATIENCE) -> Record:
        """Return a job's row once no worker changes it any more."""
        return await settled(self.database, job_id, seconds)

    async def in_state(self, job_id: str, *states: State) -> Record:
        """Return a job's row once it is in one of the states."""
        return await in_state(self.database, job_id, *states)

    async def started(self, number: int = 1) -> None:
        """Wait until attempts at so many jobs were started."""
        await until(lambda: asyncio.sleep(0, len(self.handler.jobs) >= number))

    async def events(self, job_id: str) -> list[str]:
        return await events_of(self.database, job_id)

    async def get(self, job_id: str) -> dict[str, Any]:
        """Return a job as its route shows it."""
        return await self.call("GET", f"/v1/jobs/{job_id}")

    async def cancel(self, job_id: str, *, status: int = 200) -> dict[str, Any]:
        return await self.call("POST", f"/v1/jobs/{job_id}/cancel", status=status)

    async def retry(self, job_id: str, *, status: int = 200) -> dict[str, Any]:
        return await self.call("POST", f"/v1/jobs/{job_id}/retry", status=status)

    async def call(
        self, method: str, path: str, *, status: int = 200, **request: Any
    ) -> dict[str, Any]:
        response = await self.client.request(method, path, **request)
        assert response.status_code == status, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def sql(self, statement: str, *values: Any) -> list[Record]:
        async with self.database.connection(ALL_ROOTS) as connection:
            return list(await connection.fetch(statement, *values))


def app_with_jobs(settings: Settings, **replaced: Any) -> FastAPI:
    """Return the application with one more route, which submits jobs of the kind `test`."""
    app = create_app(settings, **replaced)

    router = APIRouter(route_class=GuardedRoute)

    @router.post("/v1/jobs/test")
    async def submit_test(request: Request, response: Response, access: JobsAccess) -> Job:
        return await submit(request, response, access, TEST, await request.json())

    app.include_router(router)
    return app
