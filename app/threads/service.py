"""What may be done with threads: appending, forming memories now, reading, deleting."""

from collections.abc import Sequence
from typing import Any, Self

from asyncpg import Record

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.messages import to_turns
from app.db.database import Connection, Database, Row
from app.jobs import repository as jobs_repository
from app.jobs.idempotency import Idempotent
from app.jobs.job import State
from app.jobs.service import JobService
from app.managers.plans import ExtractPlan
from app.managers.schemas import ExtractRequest
from app.managers.service import ManagerService
from app.pagination import Page
from app.resources import Resources
from app.threads import encoding, repository
from app.threads.appending import Arrival, admit, append, check_rights, job_of, with_place
from app.threads.errors import ThreadNotFoundError, ThreadWithoutManagerError
from app.threads.formation import Formation
from app.threads.schemas import AppendMessages, ReadMessages
from app.threads.visibility import find_one


class ThreadService:
    """Threads on behalf of one caller."""

    def __init__(
        self, database: Database, jobs: JobService, managers: ManagerService, clock: Clock
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._managers = managers
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ManagerService.build(resources),
            resources.clock,
        )

    async def append(
        self, access: Access, thread_id: str, body: AppendMessages, idempotent: Idempotent
    ) -> dict[str, Any]:
        """Add messages, and see to it that memories are formed of them."""
        known: dict[str, Any] | None = await idempotent.known(self._database, access)
        if known is not None:
            return known
        arrival = await self._arrival(access, thread_id, body)
        async with self._database.transaction(access.root) as connection:
            ref = await admit(connection, access, arrival)
            answer: dict[str, Any] | None = await idempotent.replayed(connection, access)
            if answer is None:
                now = self._clock.now()
                appended = await append(connection, access, self._jobs, ref, arrival, now)
                answer = encoding.appended(thread_id, appended)
                await idempotent.remember(connection, access, answer)
        return answer

    async def flush(self, access: Access, thread_id: str) -> str | None:
        """Let memories be formed now; return the job's id, None where nothing waits."""
        async with self._database.transaction(access.root) as connection:
            thread = await _locked(connection, access, thread_id)
            begun = await repository.find_jobs(connection, repository.ref_of(thread))
            if begun:
                job_id: str = begun[0]["id"]
                await jobs_repository.hurry(connection, job_id)
                return job_id
            if thread["learned_until"] == thread["next_position"]:
                return None
            if thread["formation"] is None:
                raise ThreadWithoutManagerError(thread_id)
            formation = Formation.model_validate_json(thread["formation"])
            check_rights(access, thread, formation)
            return await self._jobs.create_or_move(connection, access, job_of(thread, formation))

    async def get(self, access: Access, thread_id: str) -> tuple[Record, Record | None]:
        """Return a thread's row, and that of the job that waits to form memories of it."""
        async with self._database.connection(access.root) as connection:
            thread = await find_one(connection, access, thread_id)
            jobs = await repository.find_jobs(connection, repository.ref_of(thread))
        return thread, next((job for job in jobs if job["state"] == State.QUEUED), None)

    async def readable(self, access: Access, thread_id: str) -> Record:
        """Return a thread's row; raises ForbiddenError unless the caller may read its messages."""
        async with self._database.connection(access.root) as connection:
            return await _readable(connection, access, thread_id)

    async def messages(self, access: Access, thread_id: str, query: ReadMessages) -> Page[Record]:
        """Return a page of a thread's messages, in order."""
        async with self._database.connection(access.root) as connection:
            thread = await _readable(connection, access, thread_id)
            return await repository.find_page(
                connection, repository.ref_of(thread), query.cursor, query.limit
            )

    async def delete(self, access: Access, thread_id: str) -> None:
        """Remove a thread and its messages; its jobs are cancelled, its memories stay."""
        async with self._database.transaction(access.root) as connection:
            ref = repository.ref_of(await _locked(connection, access, thread_id))
            jobs = await repository.find_jobs(connection, ref)
            await _cancel(connection, jobs, State.QUEUED)
            await repository.delete(connection, ref)
        # A job that ends holds itself and waits for its thread: not in the transaction above.
        async with self._database.transaction(access.root) as connection:
            await _cancel(connection, jobs, State.RUNNING)

    async def _arrival(self, access: Access, thread_id: str, body: AppendMessages) -> Arrival:
        plan = await self._plan(access, thread_id, body)
        return Arrival(
            thread_id=thread_id,
            messages=[message.members() for message in body.messages],
            namespace=plan.namespace if plan else body.namespace,
            plan=plan,
            after_seconds=body.after_seconds,
            max_wait_seconds=body.max_wait_seconds,
        )

    async def _plan(
        self, access: Access, thread_id: str, body: AppendMessages
    ) -> ExtractPlan | None:
        if body.manager is None and body.manager_config is None:
            to_turns(body.messages)  # raises where a later job could not read them
            return None
        request = ExtractRequest(
            manager=body.manager,
            manager_config=body.manager_config,
            namespace=body.namespace,
            variables=body.variables,
            messages=body.messages,
            thread_id=thread_id,
        )
        return with_place(await self._managers.extraction(access, request))


async def _locked(connection: Connection, access: Access, thread_id: str) -> Row:
    """Return the row of a thread that the caller may change, and keep others from appending."""
    found = await find_one(connection, access, thread_id)
    access.locate(access.relative(found["namespace"]), Verb.JOBS)
    thread = await repository.lock(connection, repository.ref_of(found))
    if thread is None:
        raise ThreadNotFoundError(thread_id)
    return thread


async def _readable(connection: Connection, access: Access, thread_id: str) -> Record:
    thread = await find_one(connection, access, thread_id)
    access.locate(access.relative(thread["namespace"]), Verb.READ)
    return thread


async def _cancel(connection: Connection, jobs: Sequence[Row], state: State) -> None:
    for job in jobs:
        if job["state"] == state:
            await jobs_repository.request_cancel(connection, job["id"])
