"""Memories as a model's calls leave them, before anything is written."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, assert_never

from app.conversations.types import Change, Delete, Existing, Insert, Update

_NUMBERED = re.compile(r"m([0-9]{1,9})")


class Draft:
    """The memories of a run, and what has become of each since it began."""

    def __init__(self, existing: Iterable[Existing]) -> None:
        self._before = {memory.id: memory for memory in existing}
        self._now = dict(self._before)
        self._changes: dict[str, Change] = {}
        numbers = [int(found[1]) for id_ in self._before if (found := _NUMBERED.fullmatch(id_))]
        self._last = max(numbers, default=0)

    @property
    def memories(self) -> list[Existing]:
        """The memories as they are now, new ones last."""
        return list(self._now.values())

    def get(self, memory_id: str) -> Existing | None:
        """Return the memory as it is now; None when there is none of that id, or no more."""
        return self._now.get(memory_id)

    def is_deleted(self, memory_id: str) -> bool:
        """Whether the memory was there once."""
        return memory_id not in self._now and memory_id in self._changes

    def new_id(self) -> str:
        """Return an id that no memory has had."""
        self._last += 1
        return f"m{self._last}"

    def apply(self, change: Change) -> None:
        """Take a change on, after those of the same memory that came before."""
        memory_id = change.memory_id
        self._changes[memory_id] = _merged(self._changes.get(memory_id), change)
        match change:
            case Insert():
                self._now[memory_id] = Existing(
                    memory_id,
                    change.kind,
                    change.content,
                    importance=change.importance,
                    valid_from=change.valid_from,
                )
            case Update():
                before = self._now[memory_id]
                self._now[memory_id] = replace(
                    before,
                    content=change.content,
                    importance=_newer(change.importance, before.importance),
                    valid_from=_newer(change.valid_from, before.valid_from),
                )
            case Delete():
                del self._now[memory_id]
            case _:
                assert_never(change)

    def changes(self) -> tuple[Change, ...]:
        """Return at most one change for each memory: what was there before against what is now."""
        return tuple(change for change in self._changes.values() if self._matters(change))

    def _matters(self, change: Change) -> bool:
        before = self._before.get(change.memory_id)
        match change:
            case Delete():
                return before is not None
            case Update() if before is not None:
                return _told(self._now[change.memory_id]) != _told(before)
            case _:
                return True


def _merged(earlier: Change | None, later: Change) -> Change:
    """Return the one change that does what both do, one after the other."""
    if earlier is None or isinstance(later, Delete) or isinstance(earlier, Delete):
        return later
    return replace(
        earlier,
        content=later.content,
        importance=_newer(later.importance, earlier.importance),
        valid_from=_newer(later.valid_from, earlier.valid_from),
        message_ids=tuple(dict.fromkeys(earlier.message_ids + later.message_ids)),
    )


def _newer(later: Any, earlier: Any) -> Any:
    return earlier if later is None else later


def _told(memory: Existing) -> tuple[Any, ...]:
    # As JSON, in which 1 is not true.
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from
