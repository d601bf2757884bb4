"""Jobs of the kind `extract_thread`: each message is extracted from once."""

from dataclasses import dataclass
from typing import Self

from app.db.database import Connection, Database
from app.extraction.plan import ExtractPlan
from app.extraction.task import Extractor
from app.jobs import repository as jobs_repository
from app.jobs.kind import JobFailedError, JobLostError, JobRun
from app.jobs.service import JobService
from app.json_values import JsonObject
from app.resources import Resources
from app.threads import repository
from app.threads.repository import Message, Thread, ThreadRef
from app.threads.schedule import ExtractionSchedule, ThreadExtractPlan
from app.threads.service import ThreadNotFoundError

MAX_MESSAGES = 100
"""Maximum messages that one job extracts from: no more than the calls taken from one reply."""

CONTEXT_MESSAGES = 10
CONTEXT_CHARACTERS = 8_000
"""Maximum earlier messages that are shown as context, and their characters as JSON."""

_NO_CHANGES = dict.fromkeys(("inserted", "updated", "deleted", "unchanged", "rejected"), 0)


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive messages of a thread, those before its `extracted_until` as context."""

    thread: Thread
    schedule: ExtractionSchedule
    messages: list[Message]

    @property
    def context_messages(self) -> int:
        """The number of messages that are context."""
        return self.thread.extracted_until - self.messages[0].position

    @property
    def plan(self) -> ExtractPlan:
        """The extraction from these messages."""
        return self.schedule.plan_for(
            [_with_time(message) for message in self.messages],
            position=self.messages[0].position,
            context_messages=self.context_messages,
        )


def _with_time(message: Message) -> JsonObject:
    """Return a message's members; without a time of its own, it was said when it was appended."""
    members = message.members
    return {**members, "created_at": members.get("created_at") or message.created_at.isoformat()}


class ThreadExtractHandler:
    """Runs the jobs of the kind `extract_thread`."""

    def __init__(
        self, database: Database, jobs: JobService, extractor: Extractor, chunk_characters: int
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._extractor = extractor
        self._chunk_characters = chunk_characters

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        jobs, extractor = JobService.build(resources), Extractor.build(resources)
        return cls(resources.database, jobs, extractor, resources.settings.extract_chunk_characters)

    async def run(self, run: JobRun, plan: ThreadExtractPlan) -> None:
        """Extract memories from the pending messages, or from as many as one job takes."""
        portion = await self._portion(run, plan.thread_id)
        if portion is None:
            result: JsonObject = {"counts": _NO_CHANGES, "rejected": []}
            async with self._database.transaction(run.job.access.root) as connection:
                await run.finish(connection, result)
            return

        async def conclude(connection: Connection, read: int) -> None:
            await self._set_extracted(connection, run, portion, read)

        await self._extractor.extract(run, portion.plan, conclude=conclude)

    async def _portion(self, run: JobRun, thread_id: str) -> Portion | None:
        """Return the next messages to extract from; None if no message is pending."""
        root = run.job.access.root
        async with self._database.connection(root) as connection:
            ref = ThreadRef(root, thread_id, run.job.namespace)
            thread = await repository.find(connection, ref)
            if thread is None or thread.schedule is None:
                error = ThreadNotFoundError(thread_id)
                raise JobFailedError(error.code, error.detail)
            messages = await _next_messages(connection, thread, self._chunk_characters)
        return Portion(thread, thread.schedule, messages) if messages else None

    async def _set_extracted(
        self, connection: Connection, run: JobRun, portion: Portion, read: int
    ) -> None:
        """Move the thread's mark, in the transaction that writes the memories.

        Another job reads the other messages: those without room, or from the first that failed.
        """
        thread = portion.thread
        end = portion.messages[portion.context_messages + read - 1].position + 1
        if not await repository.set_extracted(connection, thread, end):
            raise JobLostError
        if end < thread.next_position:
            following = portion.schedule.job(thread.id, thread.namespace)
            job_id = await self._jobs.create_or_move(connection, run.job.access, following)
            await jobs_repository.set_follow_up(connection, run.job.id, job_id)


async def _next_messages(connection: Connection, thread: Thread, characters: int) -> list[Message]:
    """Return the pending messages, as many as one job takes, after some earlier ones."""
    start, end = thread.extracted_until, thread.next_position
    if start == end:
        return []
    earlier = await repository.find_before(
        connection, thread.ref, start - CONTEXT_MESSAGES, start, CONTEXT_CHARACTERS
    )
    end = min(end, start + MAX_MESSAGES)
    return earlier + await repository.find_next(connection, thread.ref, start, end, characters)
