"""What a model makes of a batch of memories that are kept already."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.changes.reconcile import reconcile
from app.consolidation.batches import Memory, Part
from app.conversations.types import Ask, Change, Delete, Insert, Rejected, Task
from app.extraction.loop import propose
from app.extraction.tools import DELETE, UPDATE


async def tidy(ask: Ask, batch: Sequence[Memory], task: Task, *, namespace: str) -> Part:
    """Ask a model to put a batch in order; `task` says how. Raises what `ask` raises.

    Where an insert or update could not be carried out, the part has no edits: what was to be
    deleted may have been meant to go on in it.
    """
    by_id = {f"m{number}": memory for number, memory in enumerate(batch, start=1)}
    shown = [replace(memory.existing, id=id_) for id_, memory in by_id.items()]
    fixed = {id_: memory.fixed for id_, memory in by_id.items() if memory.fixed}
    instructions = "\n\n".join(filter(None, [task.instructions, _hands_off(fixed)]))
    proposed = await propose(ask, replace(task, existing=shown, instructions=instructions))
    allowed = [change for change in proposed.changes if change.memory_id not in fixed]
    forbidden = [
        Rejected(_tool(change), f"the memory {fixed[change.memory_id]}")
        for change in proposed.changes
        if change.memory_id in fixed
    ]
    rejected = (*proposed.rejected, *forbidden)
    failure = next((call.reason for call in rejected if call.tool != DELETE), None)
    if failure is not None:
        return Part(batch, rejected=rejected, failure=failure)
    single = {kind.name for kind in task.kinds if kind.single}
    reconciled = await asyncio.to_thread(
        reconcile, allowed, shown, namespace=namespace, single=single
    )
    return Part(batch, tuple(reconciled.edits.values()), rejected=rejected)


def _hands_off(fixed: Iterable[str]) -> str | None:
    ids = ", ".join(fixed)
    return f"These memories are only for reading, leave them as they are: {ids}." if ids else None


def _tool(change: Change) -> str:
    match change:
        case Delete():
            return DELETE
        case Insert(kind=kind):
            return kind
        case _:
            return UPDATE
