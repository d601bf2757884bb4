"""Several passes over the same memories: what they come to together."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.managers.memories import Change, Delete, Existing, Insert, Update
from app.managers.reconciling import both, known


def merge(earlier: Iterable[Change], later: Iterable[Change]) -> tuple[Change, ...]:
    """Return what two steps come to, the later one having seen the outcome of the earlier."""
    merged = {change.memory_id: change for change in earlier}
    for change in later:
        before = merged.pop(change.memory_id, None)
        if isinstance(before, Insert) and isinstance(change, Delete):
            continue
        merged[change.memory_id] = _after(before, change)
    return tuple(merged.values())


def resulting(existing: Sequence[Existing], changes: Iterable[Change]) -> list[Existing]:
    """Return the memories as they are after some changes, those that were there first."""
    state = {memory.id: memory for memory in existing}
    for change in changes:
        match change:
            case Delete():
                state.pop(change.memory_id, None)
            case Insert():
                state[change.memory_id] = Existing(
                    change.memory_id,
                    change.kind,
                    change.content,
                    importance=change.importance,
                    valid_from=change.valid_from,
                )
            case Update():
                before = state[change.memory_id]
                state[change.memory_id] = replace(
                    before,
                    content=change.content,
                    importance=known(change.importance, before.importance),
                    valid_from=change.valid_from or before.valid_from,
                )
    return list(state.values())


def _after(before: Change | None, change: Change) -> Change:
    """Return what two changes of one memory, neither undoing the other, come to."""
    if not isinstance(before, Insert | Update) or not isinstance(change, Update):
        return change
    return replace(
        before,
        content=change.content,
        importance=known(change.importance, before.importance),
        valid_from=change.valid_from or before.valid_from,
        message_ids=both(before.message_ids, change.message_ids),
    )
