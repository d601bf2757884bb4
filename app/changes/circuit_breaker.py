"""The circuit breaker: a job that would overwrite many memories waits for a review instead."""

from collections.abc import Collection, Iterable, Sequence

from app.conversations.types import Edit, Memory
from app.json_values import JsonObject

REVIEW_REQUESTED = 'A review was asked for (apply: "review").'

HARMLESS = 2
"""Number of memories, or of a document's fields, that may be lost regardless of their share."""


def review_reason(
    edits: Iterable[Edit],
    shown: Sequence[Memory],
    *,
    singletons: Collection[str] = (),
    max_share: float,
) -> str | None:
    """Return the reason why edits must wait for a review, or None.

    They must if they delete or rewrite more than two memories and more than `max_share` of those
    that the job read. The document of a singleton kind is patched often, so its fields count
    instead: more than two, and more than `max_share` of them, would be lost.
    """
    overturned = 0
    for edit in edits:
        if edit.before is None:
            continue
        if edit.action == "delete" or edit.kind not in singletons:
            overturned += edit.content != edit.before.content
        elif reason := _lost_fields_reason(edit, edit.before, max_share):
            return reason
    if overturned > HARMLESS and overturned > max_share * len(shown):
        return (
            f"{overturned} of the {len(shown)} memories that the job looked at would be "
            f"rewritten or deleted, which is more than max_change_share ({max_share:g}) allows."
        )
    return None


def _lost_fields_reason(edit: Edit, before: Memory, max_share: float) -> str | None:
    fields = _fields(before.content)
    lost = len(fields - _fields(edit.content or {}))
    if lost > HARMLESS and lost > max_share * len(fields):
        return (
            f'{lost} of the {len(fields)} fields of the document "{edit.kind}" would be lost, '
            f"which is more than max_change_share ({max_share:g}) allows."
        )
    return None


def _fields(content: JsonObject, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the paths of the members that are not empty."""
    found = set()
    for name, value in content.items():
        if isinstance(value, dict):
            found |= _fields(value, (*path, name))
        elif value not in (None, "", []):
            found.add((*path, name))
    return found
