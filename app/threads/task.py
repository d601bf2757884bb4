"""Jobs of the kind `extract_thread`: each message is extracted from once."""

from dataclasses import dataclass
from typing import Self

from app.db.database import Connection, Database
from app.extraction.plan import ExtractPlan
from app.extraction.task import Extractor
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

MAX_CHARACTERS = 96_000
"""Maximum characters of these messages as JSON: about 24,000 tokens."""

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
    def end(self) -> int:
        """The position behind the last message."""
        return self.messages[-1].position + 1

    @property
    def plan(self) -> ExtractPlan:
        """The extraction from these messages."""
        position = self.messages[0].position
        return self.schedule.plan_for(
            [message.members for message in self.messages],
            position=position,
            context_messages=self.thread.extracted_until - position,
        )


class ThreadExtractHandler:
    """Runs the jobs of the kind `extract_thread`."""

    def __init__(self, database: Database, jobs: JobService, extractor: Extractor) -> None:
        self._database = database
        self._jobs = jobs
        self._extractor = extractor

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, JobService.build(resources), Extractor.build(resources))

    async def run(self, run: JobRun, plan: ThreadExtractPlan) -> None:
        """Extract memories from the pending messages, or from as many as one job takes."""
        portion = await self._portion(run, plan.thread_id)
        if portion is None:
            result: JsonObject = {"counts": _NO_CHANGES, "rejected": []}
            async with self._database.transaction(run.job.access.root) as connection:
                await run.finish(connection, result)
            return

        async def set_extracted(connection: Connection) -> None:
            await self._set_extracted(connection, run, portion)

        await self._extractor.extract(run, portion.plan, in_transaction=set_extracted)

    async def _portion(self, run: JobRun, thread_id: str) -> Portion | None:
        """Return the next messages to extract from; None if no message is pending."""
        root = run.job.access.root
        async with self._database.connection(root) as connection:
            ref = ThreadRef(root, thread_id, run.job.namespace)
            thread = await repository.find(connection, ref)
            if thread is None or thread.schedule is None:
                error = ThreadNotFoundError(thread_id)
                raise JobFailedError(error.code, error.detail)
            messages = await _next_messages(connection, thread)
        return Portion(thread, thread.schedule, messages) if messages else None

    async def _set_extracted(self, connection: Connection, run: JobRun, portion: Portion) -> None:
        """Move the thread's mark, in the transaction that writes the memories."""
        thread = portion.thread
        if not await repository.set_extracted(connection, thread, portion.end):
            raise JobLostError
        if portion.end < thread.next_position:
            following = portion.schedule.job(thread.id, thread.namespace)
            await self._jobs.create_or_move(connection, run.job.access, following)


async def _next_messages(connection: Connection, thread: Thread) -> list[Message]:
    """Return the pending messages, as many as one job takes, after some earlier ones."""
    start, end = thread.extracted_until, thread.next_position
    if start == end:
        return []
    earlier = await repository.find_before(
        connection, thread.ref, start - CONTEXT_MESSAGES, start, CONTEXT_CHARACTERS
    )
    end = min(end, start + MAX_MESSAGES)
    return earlier + await repository.find_next(connection, thread.ref, start, end, MAX_CHARACTERS)
