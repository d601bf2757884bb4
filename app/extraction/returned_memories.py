"""Extractions that store nothing: memories come with the request, and go with the result."""

from collections.abc import Sequence
from uuid import uuid4

from app.changes.reconcile import Reconciliation
from app.conversations.types import Edit, Memory, Rejection
from app.extraction.plan import RequestMemory
from app.json_values import JsonObject


def to_memories(memories: Sequence[RequestMemory]) -> list[Memory]:
    """Return the memories of a request with short ids, in order."""
    return [
        Memory(f"m{number}", memory.kind, memory.content)
        for number, memory in enumerate(memories, start=1)
    ]


def build_result(
    memories: Sequence[RequestMemory], reconciled: Reconciliation, rejected: Sequence[Rejection]
) -> JsonObject:
    """Return the result: every memory in its new state, those of the request first."""
    edits = reconciled.edits
    present: list[JsonObject] = []
    deleted: list[str] = []
    for existing, memory in zip(to_memories(memories), memories, strict=True):
        edit = edits.get(existing.id)
        if edit is not None and edit.action == "delete":
            deleted.append(memory.id)
        else:
            change = "updated" if edit else "unchanged"
            present.append(_to_json(memory.id, edit or existing, change))
    inserts = reconciled.inserts.values()
    present += [_to_json(uuid4().hex, edit, "inserted") for edit in inserts]
    return {
        "counts": {
            "inserted": len(inserts),
            "updated": sum(memory["change"] == "updated" for memory in present),
            "deleted": len(deleted),
            "unchanged": reconciled.unchanged,
            "rejected": len(rejected),
        },
        "rejected": [rejection.members() for rejection in rejected],
        "memories": present,
        "deleted": deleted,
    }


def _to_json(memory_id: str, memory: Memory | Edit, change: str) -> JsonObject:
    since = memory.valid_from
    return {
        "id": memory_id,
        "kind": memory.kind,
        "content": memory.content,
        "importance": memory.importance,
        "valid_from": None if since is None else since.isoformat(),
        "change": change,
    }
