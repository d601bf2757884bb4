"""Operations on jobs: submit, read, wait, follow, cancel, and retry."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Self

from asyncpg import UniqueViolationError

from app.auth.access import Access, Verb
from app.db.database import Connection, Database, DatabaseUnavailableError
from app.db.notifier import CHANGED, Notifier, wait_for
from app.db.pages import Page
from app.errors import ConflictError, NotFoundError
from app.http.request_context import OverloadedError, long_wait
from app.jobs import repository
from app.jobs.record import JobEvent, JobRecord, JobState, NewJob, Selection, State
from app.json_values import is_storable_text
from app.namespaces import Labels
from app.resources import Resources

POLL_SECONDS = 2.0
"""Time after which a request that waits for a job reads it again without a notification."""

MAX_PAGE_BYTES = 4 << 20
"""Maximum size of a page's results; a page ends early, but has at least one job."""


class JobNotFoundError(NotFoundError):
    """No such job, or not one that the caller may see."""

    code = "job_not_found"
    title = "Job not found"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f'There is no job "{job_id}" here; GET /v1/jobs lists those there are. '
            "Jobs that ended long ago are removed."
        )


class JobStateError(ConflictError):
    """The job's state does not allow the operation."""

    code = "job_state"
    title = "Not in this state"

    def __init__(self, job_id: str, state: State, hint: str) -> None:
        super().__init__(f'The job "{job_id}" is {state}; {hint}.')


class JobService:
    """Jobs on behalf of one caller."""

    def __init__(self, database: Database, notifier: Notifier, attempts: int) -> None:
        self._database = database
        self._notifier = notifier
        self._attempts = attempts

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the service from a process's resources."""
        return cls(resources.database, resources.notifier, resources.settings.job_attempts)

    async def create(
        self, connection: Connection, access: Access, new: NewJob, *, urgent: bool = False
    ) -> str:
        """Submit a job in the caller's transaction; return its id. Raises TooManyRequestsError."""
        await repository.take_tokens(connection, access)
        return await repository.insert(
            connection,
            access,
            new,
            priority=repository.URGENT if urgent else repository.BACKGROUND,
            max_attempts=self._attempts,
        )

    async def create_or_move(self, connection: Connection, access: Access, new: NewJob) -> str:
        """Submit a job, or move the start of the queued one with its `dedupe_key`; return its id.

        Raises TooManyRequestsError for a new one.
        """
        job_id, is_new = await repository.insert_or_move(
            connection, access, new, max_attempts=self._attempts
        )
        if is_new:
            await repository.take_tokens(connection, access)
        return job_id

    async def get(self, access: Access, job_id: str) -> JobRecord:
        """Return a job; raises JobNotFoundError, also if the caller may not see it."""
        if not is_storable_text(job_id):
            raise JobNotFoundError(job_id)
        async with self._database.connection(access.root) as connection:
            job = await repository.find(connection, job_id)
        if job is None or not job.is_visible_to(access):
            raise JobNotFoundError(job_id)
        return job

    async def get_state(self, access: Access, job_id: str) -> JobState:
        """Return a job's state; raises JobNotFoundError, also if the caller may not see it."""
        if not is_storable_text(job_id):
            raise JobNotFoundError(job_id)
        async with self._database.connection(access.root) as connection:
            state = await repository.find_state(connection, job_id)
        if state is None or not state.is_visible_to(access):
            raise JobNotFoundError(job_id)
        return state

    async def list(
        self,
        access: Access,
        labels: Labels,
        *,
        equal: Mapping[str, str],
        before: str | None,
        limit: int,
        with_results: bool = False,
    ) -> Page[JobRecord]:
        """Return a page of jobs, newest first; one with results may be shorter than `limit`."""
        namespaces = access.scope(labels, Verb.JOBS)
        async with self._database.connection(access.root) as connection:
            page = await repository.find_page(
                connection, namespaces, equal=equal, before=before, limit=limit
            )
            return await _with_results(connection, access, page) if with_results else page

    async def wait(self, access: Access, job_id: str, seconds: float) -> JobRecord:
        """Return a job once it is settled, or as it is after `seconds`.

        If too many requests are waiting, it returns at once.
        """
        if seconds <= 0:
            return await self.get(access, job_id)
        try:
            with long_wait():
                return await self._wait(access, job_id, seconds)
        except OverloadedError:
            return await self.get(access, job_id)

    async def _wait(self, access: Access, job_id: str, seconds: float) -> JobRecord:
        deadline = asyncio.get_running_loop().time() + seconds
        with self._notifier.subscribed(CHANGED, job_id) as news:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                try:
                    if left <= 0 or await self._is_at_rest(access, job_id):
                        return await self.get(access, job_id)
                except DatabaseUnavailableError:
                    if left <= 0:
                        raise
                await wait_for(news, min(left, POLL_SECONDS))

    async def _is_at_rest(self, access: Access, job_id: str) -> bool:
        """Return whether to stop waiting for a job."""
        state = await self.get_state(access, job_id)
        return state.is_settled or state.is_blocked

    async def follow(self, access: Access, job_id: str, after: int) -> AsyncIterator[JobEvent]:
        """Yield the events of a job after the given number, until the job is settled."""
        with self._notifier.subscribed(CHANGED, job_id) as news:
            while True:
                try:
                    settled = (await self.get_state(access, job_id)).is_settled
                    async with self._database.connection(access.root) as connection:
                        events = await repository.find_events(connection, job_id, after)
                except DatabaseUnavailableError:
                    await wait_for(news, POLL_SECONDS)
                    continue
                for event in events:
                    after = event.number
                    yield event
                if not events:
                    if settled:
                        return
                    await wait_for(news, POLL_SECONDS)

    async def cancel(self, access: Access, job_id: str) -> JobRecord:
        """Cancel a job, at once or as soon as its worker is notified; a settled one is kept."""
        await self.get_state(access, job_id)
        async with self._database.transaction(access.root) as connection:
            await repository.request_cancel(connection, job_id)
        job = await self.get(access, job_id)
        if job.state is State.AWAITING_REVIEW:
            raise JobStateError(job_id, job.state, "discard what it proposes instead")
        if job.state in (State.SUCCEEDED, State.FAILED):
            raise JobStateError(job_id, job.state, "only jobs that have not ended can be cancelled")
        return job

    async def retry(self, access: Access, job_id: str) -> JobRecord:
        """Queue a failed or cancelled job again, with all its attempts."""
        state = (await self.get_state(access, job_id)).state
        try:
            async with self._database.transaction(access.root) as connection:
                if not await repository.requeue(connection, job_id, self._attempts):
                    raise JobStateError(
                        job_id, state, "only failed and cancelled jobs can be retried"
                    )
                await repository.take_tokens(connection, access)
        except UniqueViolationError as error:
            raise JobStateError(job_id, state, "another job of its thread is queued") from error
        return await self.get(access, job_id)

    async def retry_all(
        self, access: Access, labels: Labels, selection: Selection
    ) -> tuple[int, bool]:
        """Queue failed or cancelled jobs again, with all their attempts, as the key's rate allows.

        Return how many, and whether there may be more.
        """
        namespaces = access.scope(labels, Verb.JOBS)
        async with self._database.transaction(access.root) as connection:
            limit = await repository.available_tokens(connection, access, selection.limit)
            selection = replace(selection, limit=limit)
            retried = await repository.requeue_all(
                connection, namespaces, selection, self._attempts
            )
            await repository.take_tokens(connection, access, retried)
        return retried, retried == limit


async def _with_results(
    connection: Connection, access: Access, page: Page[JobRecord]
) -> Page[JobRecord]:
    """Return a page with the results that the caller may read, up to `MAX_PAGE_BYTES`."""
    jobs: list[JobRecord] = []
    left = MAX_PAGE_BYTES
    for job in page.items:
        readable = job.is_readable_by(access)
        result = await repository.find_result(connection, job.id) if readable else None
        jobs.append(replace(job, result=result))
        left -= len(result or "")
        if left <= 0:
            break
    return Page(jobs, page.more or len(jobs) < len(page.items))
