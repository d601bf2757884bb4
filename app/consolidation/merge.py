"""What a model makes of a batch of memories that are kept already."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.changes.reconcile import reconcile
from app.consolidation.batches import Part, StoredMemory
from app.conversations.types import Ask, Edit, LLMTask, Rejection
from app.extraction.loop import propose
from app.extraction.prompt import DELETE, UPDATE
from app.namespaces import StoredNamespace


async def tidy(ask: Ask, batch: Sequence[StoredMemory], task: LLMTask, *, namespace: str) -> Part:
    """Ask a model to put a batch in order; `task` says how. Raises what `ask` raises.

    Where an insert or update could not be carried out, the part has no edits: what was to be
    deleted may have been meant to go on in it.
    """
    by_id = {f"m{number}": memory for number, memory in enumerate(batch, start=1)}
    shown = [replace(memory.existing, id=id_) for id_, memory in by_id.items()]
    fixed = {id_: memory.fixed for id_, memory in by_id.items() if memory.fixed}
    instructions = "\n\n".join(filter(None, [task.instructions, _hands_off(fixed)]))
    proposed = await propose(ask, replace(task, existing=shown, instructions=instructions))
    allowed = [edit for edit in proposed.edits if edit.memory_id not in fixed]
    forbidden = [
        Rejection(_tool(edit), f"the memory {fixed[edit.memory_id]}")
        for edit in proposed.edits
        if edit.memory_id in fixed
    ]
    rejected = (*proposed.rejected, *forbidden)
    failure = next((call.reason for call in rejected if call.tool != DELETE), None)
    if failure is not None:
        return Part(batch, rejected=rejected, failure=failure)
    singletons = {kind.name for kind in task.kinds if kind.singleton}
    reconciled = await asyncio.to_thread(
        reconcile, allowed, shown, namespace=StoredNamespace(namespace), singletons=singletons
    )
    return Part(batch, tuple(reconciled.edits.values()), rejected=rejected)


def _hands_off(fixed: Iterable[str]) -> str | None:
    ids = ", ".join(fixed)
    return f"These memories are only for reading, leave them as they are: {ids}." if ids else None


def _tool(edit: Edit) -> str:
    match edit.action:
        case "delete":
            return DELETE
        case "insert":
            return edit.kind or ""
        case "update":
            return UPDATE
