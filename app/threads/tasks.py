"""The job that forms memories of a thread: it learns from each message once."""

from dataclasses import dataclass
from typing import Any, Self

from asyncpg import Record

from app.db.database import Connection, Database, Row
from app.extraction.task import Extractor
from app.jobs.run import JobFailedError, JobLostError, JobRun
from app.jobs.service import JobService
from app.managers.plans import ExtractPlan
from app.resources import Resources
from app.threads import repository
from app.threads.appending import job_of
from app.threads.errors import ThreadNotFoundError
from app.threads.formation import Formation, ThreadExtractPlan

MAX_MESSAGES = 100
"""That one job learns from: no more than calls are taken from one reply of a model."""

MAX_CHARACTERS = 96_000
"""Of their JSON: some 24,000 tokens."""

CONTEXT_MESSAGES = 10
CONTEXT_CHARACTERS = 8_000
"""Of messages learned from before, which the next may refer to."""

_NOTHING = dict.fromkeys(("inserted", "updated", "deleted", "unchanged", "rejected"), 0)


@dataclass(frozen=True, slots=True)
class Portion:
    """Messages of a thread up to before `end`, the first of them at `position`.

    Those before the thread's `learned_until` are context.
    """

    thread: Row
    formation: Formation
    messages: list[dict[str, Any]]
    position: int
    end: int

    @property
    def start(self) -> int:
        """Position of the first message to learn from."""
        return int(self.thread["learned_until"])

    @property
    def plan(self) -> ExtractPlan:
        """What to do with the messages."""
        learn_from = self.start - self.position
        return self.formation.plan_for(self.messages, position=self.position, learn_from=learn_from)


class ThreadExtractHandler:
    """Does the jobs of the kind `extract_thread`."""

    def __init__(self, database: Database, jobs: JobService, extractor: Extractor) -> None:
        self._database = database
        self._jobs = jobs
        self._extractor = extractor

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, JobService.build(resources), Extractor.build(resources))

    async def run(self, run: JobRun, plan: ThreadExtractPlan) -> None:
        """Form memories of the messages that wait, or of as many as one job takes."""
        portion = await self._portion(run, plan.thread_id)
        if portion is None:
            async with self._database.transaction(run.job.access.root) as connection:
                await run.finish(connection, {"counts": _NOTHING, "rejected": []})
            return

        async def learned(connection: Connection) -> None:
            await self._learned(connection, run, portion)

        await self._extractor.extract(run, portion.plan, also=learned)

    async def _portion(self, run: JobRun, thread_id: str) -> Portion | None:
        """Read what is to be learned from next; None when nothing waits."""
        root = run.job.access.root
        async with self._database.connection(root) as connection:
            ref = (root, thread_id, run.job.namespace)
            thread = await repository.find(connection, ref)
            if thread is None or thread["formation"] is None:
                error = ThreadNotFoundError(thread_id)
                raise JobFailedError(error.code, error.detail)
            rows = await _next_rows(connection, thread)
        if not rows:
            return None
        return Portion(
            thread=thread,
            formation=Formation.model_validate_json(thread["formation"]),
            messages=[repository.message_of(row) for row in rows],
            position=rows[0]["position"],
            end=rows[-1]["position"] + 1,
        )

    async def _learned(self, connection: Connection, run: JobRun, portion: Portion) -> None:
        """Note, in the transaction that writes the memories, what they were formed of."""
        thread = portion.thread
        if not await repository.learned(connection, thread, portion.end):
            raise JobLostError
        if portion.end < thread["next_position"]:
            following = job_of(thread, portion.formation)
            await self._jobs.create_or_move(connection, run.job.access, following)


async def _next_rows(connection: Connection, thread: Row) -> list[Record]:
    """Return the messages that wait, as many as one job takes, after some known ones."""
    ref = repository.ref_of(thread)
    start, end = thread["learned_until"], thread["next_position"]
    if start == end:
        return []
    earlier = await repository.find_before(
        connection, ref, start - CONTEXT_MESSAGES, start, CONTEXT_CHARACTERS
    )
    end = min(end, start + MAX_MESSAGES)
    return earlier + await repository.find_next(connection, ref, start, end, MAX_CHARACTERS)
