"""Extraction jobs in tests: a store, a model that does what a test says, and no queue."""

import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

from asyncpg import Record

from app.auth.access import ANONYMOUS, Access
from app.changes.repository import Change, ListedChange
from app.changes.review import ReviewService
from app.changes.undo import UndoService
from app.clock import FrozenClock
from app.conversations.call_habits import CallHabit, CallHabits
from app.db.database import ALL_ROOTS
from app.extraction.plan import ExtractPlanner, ExtractRequest
from app.http.headers import UNCONDITIONAL
from app.job_kinds import EXTRACT
from app.jobs.kind import JobRun
from app.jobs.record import CLAIMED_COLUMNS, ClaimedJob, JobRecord, State
from app.jobs.service import JobService
from app.namespaces import to_stored
from app.providers.llm import Completion, LLMPool, Request
from app.resources import Resources
from app.store.schemas import PatchItem, PutItem
from app.store.types import Address, Delete
from app.store.writer import ItemWriter
from tests.support.scripted_model import NOTHING

ANA = ["users", "ana"]
CONVERSATION = [["user", "I moved to Lisbon."]]

Respond: TypeAlias = Callable[[Request], Awaitable[Completion]]

_BEGIN = f"""
UPDATE jobs SET state = 'running', attempt = attempt + 1, started_at = clock_timestamp()
WHERE id = $1 RETURNING {CLAIMED_COLUMNS}
"""


class Model:
    """A model that answers from its script, and through `respond` when that is empty.

    Functions in the script run before the reply that follows them.
    """

    name = "scripted:model"

    def __init__(self) -> None:
        self.script: deque[Completion | Callable[[], Awaitable[None]]] = deque()
        self.requests: list[Request] = []
        self.respond: Respond = self._nothing

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        while self.script:
            reply = self.script.popleft()
            if isinstance(reply, Completion):
                return reply
            await reply()
        return await self.respond(request)

    async def aclose(self) -> None: ...

    @property
    def prompt(self) -> str:
        """The first message of the last request."""
        return self.requests[-1].messages[0].text

    async def _nothing(self, _: Request) -> Completion:
        return NOTHING


class Memories:
    """A database of memories, and jobs that extract into it."""

    def __init__(self, resources: Resources) -> None:
        self.model = Model()
        llms = LLMPool(
            self.model.name, lambda _: self.model, allowed=["anthropic:x"], concurrency=64
        )
        self.resources = replace(resources, llms=llms, habits=CallHabits())
        self.resources.habits.learn(self.model.name, CallHabit.SEVERAL)
        self.writer = ItemWriter.build(self.resources)
        self.jobs = JobService.build(self.resources)
        self.reviews = ReviewService.build(self.resources)
        self.undos = UndoService.build(self.resources)

    def advance_clock(self) -> None:
        """Let a minute pass, if only tests let time pass."""
        if isinstance(self.resources.clock, FrozenClock):
            self.resources.clock.advance(timedelta(minutes=1))

    async def put(
        self,
        key: str,
        value: dict[str, Any] | str,
        labels: list[str] = ANA,
        access: Access = ANONYMOUS,
        **more: Any,
    ) -> None:
        """Put an item; a text stands for a memory that says it."""
        self.advance_clock()
        held = memory_value(value) if isinstance(value, str) else value
        body = PutItem.model_validate({"namespace": labels, "key": key, "value": held, **more})
        await self.writer.put(access, body.command(access))

    async def patch(self, key: str, labels: list[str] = ANA, **members: Any) -> None:
        body = PatchItem.model_validate({"namespace": labels, "key": key, **members})
        await self.writer.patch(ANONYMOUS, body.command(ANONYMOUS, UNCONDITIONAL))

    async def delete(self, key: str, labels: list[str] = ANA) -> None:
        self.advance_clock()
        await self.writer.delete(ANONYMOUS, Delete(Address(to_stored(labels), key)))

    async def get(self, key: str, labels: list[str] = ANA) -> Any:
        sql = "SELECT * FROM items WHERE namespace = $1 AND key = $2"
        return next(iter(await self.rows(sql, to_stored(labels), key)), None)

    async def value(self, key: str, labels: list[str] = ANA) -> Any:
        row = await self.get(key, labels)
        return None if row is None else json.loads(row["value"])

    async def history(self, key: str, labels: list[str] = ANA) -> list[Record]:
        """Return an item's versions, oldest first."""
        sql = "SELECT * FROM item_versions WHERE namespace = $1 AND key = $2 ORDER BY version"
        return await self.rows(sql, to_stored(labels), key)

    async def rows(self, sql: str, *arguments: Any) -> list[Record]:
        async with self.resources.database.connection(ALL_ROOTS) as connection:
            return list(await connection.fetch(sql, *arguments))

    async def keys(self, labels: list[str] = ANA) -> list[str]:
        sql = "SELECT key FROM items WHERE namespace = $1 ORDER BY key"
        return [row["key"] for row in await self.rows(sql, to_stored(labels))]

    async def stored(self) -> list[Record]:
        """Return all items, oldest first."""
        return await self.rows("SELECT * FROM items ORDER BY id")

    async def texts(self) -> list[str]:
        """Return the texts of the memories that have one, in alphabetical order."""
        contents = [json.loads(row["value"]).get("content", {}) for row in await self.stored()]
        return sorted(content["content"] for content in contents if "content" in content)

    async def begin(
        self, messages: list[Any] | None = None, *, access: Access = ANONYMOUS, **body: Any
    ) -> ClaimedJob:
        """Submit an extraction and return its job, which is running."""
        request = {"namespace": ANA, "messages": messages or CONVERSATION, **body}
        planned = await ExtractPlanner.build(self.resources).plan_job(
            access, ExtractRequest.model_validate(request).to_command()
        )
        async with self.resources.database.transaction(access.root) as connection:
            job_id = await self.jobs.create(connection, access, planned)
        return await self.claim(job_id)

    async def claim(self, job_id: str) -> ClaimedJob:
        """Claim a job, as a worker does."""
        return ClaimedJob.of_row((await self.rows(_BEGIN, job_id))[0])

    async def run(self, job: ClaimedJob) -> None:
        await EXTRACT.bind(self.resources)(JobRun(job, self.resources.database))

    async def extract(self, messages: list[Any] | None = None, **body: Any) -> dict[str, Any]:
        """Run an extraction; return its result."""
        return (await self.extract_job(messages, **body))[1]

    async def extract_job(
        self, messages: list[Any] | None = None, **body: Any
    ) -> tuple[str, dict[str, Any]]:
        """Run an extraction; return its job's id and result."""
        job = await self.begin(messages, **body)
        await self.run(job)
        return job.id, await self.result(job.id)

    async def result(self, job_id: str) -> dict[str, Any]:
        return (await self.job(job_id)).result_object

    async def job(self, job_id: str) -> JobRecord:
        return await self.jobs.get(ANONYMOUS, job_id)

    async def state(self, job_id: str) -> State:
        return (await self.job(job_id)).state

    async def events(self, job_id: str) -> list[tuple[str, dict[str, Any]]]:
        rows = await self.rows(
            "SELECT event, data FROM job_events WHERE job_id = $1 ORDER BY number", job_id
        )
        return [(row["event"], json.loads(row["data"])) for row in rows]

    async def listed_changes(self, job_id: str, access: Access = ANONYMOUS) -> list[ListedChange]:
        page = await self.reviews.list_changes(access, job_id, after=0, limit=1000)
        return list(page.items)

    async def changes(self, job_id: str, access: Access = ANONYMOUS) -> list[Change]:
        return [listed.change for listed in await self.listed_changes(job_id, access)]


def memory_value(text: str) -> dict[str, Any]:
    return {"kind": "memory", "content": {"content": text}}


def counts(**named: int) -> dict[str, int]:
    nothing = {"inserted": 0, "updated": 0, "deleted": 0, "unchanged": 0, "rejected": 0}
    return {**nothing, **named}
