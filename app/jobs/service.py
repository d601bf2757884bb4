"""What may be done with jobs: submitting, reading, waiting, cancelling, trying again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Self

from asyncpg import Record, UniqueViolationError

from app.auth.access import Access, Verb
from app.config import Settings
from app.db.database import Connection, Database, DatabaseUnavailableError, Row
from app.db.notifier import CHANGED, Notifier, wait_for
from app.http.admission import OverloadedError, long_wait
from app.jobs import rates, repository
from app.jobs.errors import JobNotFoundError, JobStateError
from app.jobs.job import SETTLED, NewJob, State
from app.jobs.schemas import ListJobs, RetryJobs
from app.jobs.visibility import reads_contents, sees_job
from app.json_values import is_storable_text
from app.pagination import Page
from app.resources import Resources

LOOK_SECONDS = 2.0
"""How often whoever waits for a job looks at it without being told of news."""


class JobService:
    """Jobs on behalf of one caller."""

    def __init__(self, database: Database, notifier: Notifier, settings: Settings) -> None:
        self._database = database
        self._notifier = notifier
        self._settings = settings

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(resources.database, resources.notifier, resources.settings)

    async def create(
        self, connection: Connection, access: Access, new: NewJob, *, urgent: bool = False
    ) -> str:
        """Submit a job in the caller's transaction; return its id. Raises RateLimitedError."""
        await rates.take(connection, access)
        return await repository.insert(
            connection,
            access,
            new,
            priority=repository.URGENT if urgent else repository.BACKGROUND,
            max_attempts=self._settings.job_attempts,
        )

    async def create_or_move(self, connection: Connection, access: Access, new: NewJob) -> str:
        """Submit a job, or move the start of the queued one with its `dedupe_key`; return its id.

        Raises RateLimitedError for a new one.
        """
        job_id, is_new = await repository.insert_or_move(
            connection, access, new, max_attempts=self._settings.job_attempts
        )
        if is_new:
            await rates.take(connection, access)
        return job_id

    async def get(self, access: Access, job_id: str) -> Record:
        """Return a job's row; raises JobNotFoundError, also for what the caller may not see."""
        if not is_storable_text(job_id):
            raise JobNotFoundError(job_id)
        async with self._database.connection(access.root) as connection:
            row = await repository.find(connection, job_id)
        if row is None or not sees_job(access, row):
            raise JobNotFoundError(job_id)
        return row

    async def state(self, access: Access, job_id: str) -> State:
        """Return a job's state; raises JobNotFoundError, also for what the caller may not see."""
        return State((await self.glance(access, job_id))["state"])

    async def glance(self, access: Access, job_id: str) -> Record:
        """Return a job's namespace, actor and state; raises JobNotFoundError like `get`."""
        if not is_storable_text(job_id):
            raise JobNotFoundError(job_id)
        async with self._database.connection(access.root) as connection:
            row = await repository.find_state(connection, job_id)
        if row is None or not sees_job(access, row):
            raise JobNotFoundError(job_id)
        return row

    async def list(self, access: Access, query: ListJobs) -> Page[Record]:
        """Return a page of jobs, newest first."""
        async with self._database.connection(access.root) as connection:
            found = await repository.find_page(
                connection,
                access.scope(query.labels, Verb.JOBS),
                equal=query.equal,
                before=query.cursor,
                limit=query.limit + 1,
            )
        return Page.cut(found, query.limit)

    async def results(
        self, access: Access, rows: Sequence[Row], most_bytes: int
    ) -> Sequence[str | None]:
        """Return the results of the first jobs as JSON, up to `most_bytes` together."""
        texts: list[str | None] = []
        async with self._database.connection(access.root) as connection:
            for row in rows:
                readable = reads_contents(access, row)
                text = await repository.find_result(connection, row["id"]) if readable else None
                texts.append(text)
                most_bytes -= len(text or "")
                if most_bytes <= 0:
                    break
        return texts

    async def wait(self, access: Access, job_id: str, seconds: float) -> Record:
        """Return a job's row once it is settled, or as it is after `seconds`.

        If too many requests are waiting, it returns at once.
        """
        if seconds <= 0:
            return await self.get(access, job_id)
        try:
            with long_wait():
                return await self._wait(access, job_id, seconds)
        except OverloadedError:
            return await self.get(access, job_id)

    async def _wait(self, access: Access, job_id: str, seconds: float) -> Record:
        deadline = asyncio.get_running_loop().time() + seconds
        with self._notifier.subscribed(CHANGED, job_id) as news:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                try:
                    if left <= 0 or _is_at_rest(await self.glance(access, job_id)):
                        return await self.get(access, job_id)
                except DatabaseUnavailableError:
                    if left <= 0:
                        raise
                await wait_for(news, min(left, LOOK_SECONDS))

    async def follow(self, access: Access, job_id: str, after: int) -> AsyncIterator[Record]:
        """Yield what a job reports, from the event after a number on, until it is settled."""
        with self._notifier.subscribed(CHANGED, job_id) as news:
            while True:
                try:
                    settled = await self.state(access, job_id) in SETTLED
                    async with self._database.connection(access.root) as connection:
                        rows = await repository.find_events(connection, job_id, after)
                except DatabaseUnavailableError:
                    await wait_for(news, LOOK_SECONDS)
                    continue
                for row in rows:
                    after = row["number"]
                    yield row
                if not rows:
                    if settled:
                        return
                    await wait_for(news, LOOK_SECONDS)

    async def cancel(self, access: Access, job_id: str) -> Record:
        """Cancel a job: at once, or as soon as its worker hears of it; a settled one stays."""
        await self.state(access, job_id)
        async with self._database.transaction(access.root) as connection:
            await repository.request_cancel(connection, job_id)
        row = await self.get(access, job_id)
        if row["state"] == State.AWAITING_REVIEW:
            raise JobStateError(job_id, State.AWAITING_REVIEW, "discard what it proposes instead")
        if row["state"] in (State.SUCCEEDED, State.FAILED):
            raise JobStateError(
                job_id, State(row["state"]), "only jobs that have not ended can be cancelled"
            )
        return row

    async def retry(self, access: Access, job_id: str) -> Record:
        """Queue a failed or cancelled job again, with all its attempts."""
        state = await self.state(access, job_id)
        try:
            async with self._database.transaction(access.root) as connection:
                if not await repository.redrive(connection, job_id, self._settings.job_attempts):
                    raise JobStateError(
                        job_id, state, "only failed and cancelled jobs can be retried"
                    )
                await rates.take(connection, access)
        except UniqueViolationError as error:
            raise JobStateError(job_id, state, "another job of its thread is queued") from error
        return await self.get(access, job_id)

    async def retry_all(self, access: Access, asked: RetryJobs) -> tuple[int, bool]:
        """Queue failed or canceled jobs again, with all their attempts, as the key's rate allows.

        Return how many, and whether there may be more.
        """
        namespaces = access.scope(asked.namespace, Verb.JOBS)
        async with self._database.transaction(access.root) as connection:
            most = await rates.available(connection, access, asked.limit)
            selected = replace(asked.selection, limit=most)
            attempts = self._settings.job_attempts
            retried = await repository.redrive_all(connection, namespaces, selected, attempts)
            await rates.take(connection, access, retried)
        return retried, retried == most


def _is_at_rest(row: Row) -> bool:
    """Tell whether to stop waiting: the job is settled, or waits for the operator."""
    is_misconfigured = row["state"] == State.QUEUED and row["blocked_since"] is not None
    return row["state"] in SETTLED or is_misconfigured
