"""The tool that learns from a text: a job, and what came of it."""

import json

from app.changes.repository import ChangeState, ItemChange
from app.changes.review import ReviewService
from app.jobs.job import FINISHED, State
from app.jobs.service import JobService
from app.managers.schemas import ConversationMessage, ExtractRequest
from app.managers.service import ManagerService
from app.mcp.addresses import memory_id
from app.mcp.caller import Caller
from app.mcp.schemas import Extraction, ExtractMemories, Learned
from app.tools.base import ToolError

WAIT_SECONDS = 50
"""Most clients of MCP give a call up after a minute; the job goes on without them."""

MAX_CHANGES = 100


async def extract_memories(caller: Caller, asked: ExtractMemories) -> Extraction:
    """Submit an extraction and wait for it."""
    labels = caller.default_namespace if asked.namespace is None else asked.namespace
    body = ExtractRequest(
        namespace=caller.place(labels),
        messages=[ConversationMessage(role="user", content=asked.text)],
    )
    new = await ManagerService.build(caller.resources).plan_extract(caller.access, body)
    jobs = JobService.build(caller.resources)
    async with caller.resources.database.transaction(caller.access.root) as connection:
        job_id = await jobs.create(connection, caller.access, new, urgent=True)
    row = await jobs.wait(caller.access, job_id, WAIT_SECONDS)
    problem = None if row["error"] is None else json.loads(row["error"])["detail"]
    if row["state"] in FINISHED - {State.SUCCEEDED}:
        raise ToolError(f"Nothing was learned: {problem or 'the job was ' + row['state']}")
    return Extraction(
        state=row["state"],
        job_id=job_id,
        changes=await _changes(caller, job_id),
        problem=problem,
    )


async def _changes(caller: Caller, job_id: str) -> list[Learned]:
    reviews = ReviewService.build(caller.resources)
    page = await reviews.list_changes(caller.access, job_id, after=0, limit=MAX_CHANGES)
    changes = map(ItemChange.of_row, page.items)
    return [
        Learned(
            action=change.action,
            id=memory_id(caller.confined.relative(change.namespace), change.key),
            value=None if change.value is None else json.loads(change.value),
        )
        for change in changes
        if change.state is not ChangeState.REJECTED
    ]
