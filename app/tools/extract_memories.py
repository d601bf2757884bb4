"""The tool `extract_memories`: a job extracts memories from a text, and the tool waits for it."""

import json
from typing import Self

from typing_extensions import override

from app.auth.access import Verb
from app.changes.repository import ChangeState
from app.changes.review import ReviewService
from app.conversations.messages import ConversationMessage
from app.db.database import Database
from app.extraction.plan import ExtractCommand, ExtractPlanner
from app.jobs.record import FINISHED, State
from app.jobs.service import JobService
from app.resources import Resources
from app.tools.errors import ToolError
from app.tools.memory_ids import memory_id
from app.tools.memory_schemas import (
    ExtractedChange,
    ExtractionResult,
    ExtractMemoriesArguments,
)
from app.tools.memory_tools import MemoryTool, chosen_namespace
from app.tools.tool import Caller, ToolContext

WAIT_SECONDS = 50
"""Most MCP clients give up a call after a minute; the job continues without them."""

MAX_CHANGES = 100


class ExtractMemories(MemoryTool[ExtractMemoriesArguments]):
    """Submits an extraction and waits for it."""

    name = "extract_memories"
    title = "Extract memories"
    verbs = frozenset({Verb.READ, Verb.WRITE, Verb.JOBS})
    arguments = ExtractMemoriesArguments
    result = ExtractionResult
    is_destructive = True

    def __init__(
        self, planner: ExtractPlanner, jobs: JobService, reviews: ReviewService, database: Database
    ) -> None:
        self._planner = planner
        self._jobs = jobs
        self._reviews = reviews
        self._database = database

    @override
    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        return cls(
            ExtractPlanner.build(resources),
            JobService.build(resources),
            ReviewService.build(resources),
            resources.database,
        )

    @override
    async def run(
        self, context: ToolContext, arguments: ExtractMemoriesArguments
    ) -> ExtractionResult:
        """Return the state of the extraction and its changes; raises ToolError if it failed."""
        labels = chosen_namespace(context, arguments.namespace)
        command = ExtractCommand(
            namespace=context.absolute(labels),
            messages=[ConversationMessage(role="user", content=arguments.text)],
        )
        new = await self._planner.plan_job(context.access, command)
        async with self._database.transaction(context.access.root) as connection:
            job_id = await self._jobs.create(connection, context.access, new, urgent=True)
        job = await self._jobs.wait(context.access, job_id, WAIT_SECONDS)
        problem = job.error and job.error.detail
        if job.state in FINISHED - {State.SUCCEEDED}:
            raise ToolError(f"Nothing was learned: {problem or 'the job was ' + job.state}")
        return ExtractionResult(
            state=job.state,
            job_id=job_id,
            changes=await self._changes(context, job_id),
            problem=problem,
        )

    async def _changes(self, caller: Caller, job_id: str) -> list[ExtractedChange]:
        page = await self._reviews.list_changes(caller.access, job_id, after=0, limit=MAX_CHANGES)
        changes = (listed.change for listed in page.items)
        return [
            ExtractedChange(
                action=change.action,
                id=memory_id(caller.confined.relative(change.namespace), change.address.key),
                value=None if change.value is None else json.loads(change.value),
            )
            for change in changes
            if change.state is not ChangeState.REJECTED
        ]
