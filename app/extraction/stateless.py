"""Extraction that keeps nothing: memories in with the request, all of them out with the result."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from app.changes.reconcile import Reconciled
from app.conversations.types import Edit, Memory, Proposal
from app.extraction.plan import RequestMemory


def given(memories: Sequence[RequestMemory]) -> list[Memory]:
    """Return the memories of a request under short ids, in order."""
    return [
        Memory(f"m{number}", memory.kind, memory.content)
        for number, memory in enumerate(memories, start=1)
    ]


def full_state(
    memories: Sequence[RequestMemory], reconciled: Reconciled, proposed: Proposal
) -> dict[str, Any]:
    """Return the result: every memory as it now is, those of the request first."""
    edits = reconciled.edits
    kept: list[dict[str, Any]] = []
    deleted: list[str] = []
    for existing, memory in zip(given(memories), memories, strict=True):
        edit = edits.get(existing.id)
        if edit is not None and edit.action == "delete":
            deleted.append(memory.id)
        else:
            kept.append(_shown(memory.id, edit or existing, "updated" if edit else "unchanged"))
    inserts = reconciled.inserts.values()
    kept += [_shown(uuid4().hex, edit, "inserted") for edit in inserts]
    return {
        "counts": {
            "inserted": len(inserts),
            "updated": sum(memory["change"] == "updated" for memory in kept),
            "deleted": len(deleted),
            "unchanged": reconciled.unchanged,
            "rejected": len(proposed.rejected),
        },
        "rejected": [call.members() for call in proposed.rejected],
        "memories": kept,
        "deleted": deleted,
    }


def _shown(memory_id: str, memory: Memory | Edit, change: str) -> dict[str, Any]:
    since = memory.valid_from
    return {
        "id": memory_id,
        "kind": memory.kind,
        "content": memory.content,
        "importance": memory.importance,
        "valid_from": None if since is None else since.isoformat(),
        "change": change,
    }
