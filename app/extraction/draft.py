"""Memories after a model's tool calls, before anything is written."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from app.conversations.types import Edit, Memory

_NUMBERED = re.compile(r"m([0-9]{1,9})")

_T = TypeVar("_T")


class Draft:
    """The memories of a run, and the edits made to them so far."""

    def __init__(self, existing: Iterable[Memory]) -> None:
        self._before = {memory.id: memory for memory in existing}
        self._now = dict(self._before)
        self._edits: dict[str, Edit] = {}
        numbers = [int(found[1]) for id_ in self._before if (found := _NUMBERED.fullmatch(id_))]
        self._last = max(numbers, default=0)

    @property
    def memories(self) -> list[Memory]:
        """The memories in their current state, new ones last."""
        return list(self._now.values())

    def get(self, memory_id: str) -> Memory | None:
        """Return a memory in its current state; None if there is none or it was deleted."""
        return self._now.get(memory_id)

    def is_deleted(self, memory_id: str) -> bool:
        """Tell whether the memory existed and was deleted."""
        return memory_id not in self._now and memory_id in self._edits

    def new_id(self) -> str:
        """Return an id that no memory has had."""
        self._last += 1
        return f"m{self._last}"

    def apply(self, edit: Edit) -> None:
        """Apply an edit; it is merged with earlier edits of the same memory."""
        if edit.content is None:
            del self._now[edit.memory_id]
        else:
            memory = self._now.get(edit.memory_id) or Memory(edit.memory_id, edit.kind, {})
            edit = replace(
                edit,
                importance=_first(edit.importance, memory.importance),
                valid_from=_first(edit.valid_from, memory.valid_from),
            )
            self._now[edit.memory_id] = replace(
                memory,
                content=edit.content or {},
                importance=edit.importance,
                valid_from=edit.valid_from,
            )
        self._edits[edit.memory_id] = self._merged(edit)

    def edits(self) -> tuple[Edit, ...]:
        """Return at most one edit for each memory, from its state before the run to the current."""
        return tuple(edit for edit in self._edits.values() if self._has_effect(edit))

    def _merged(self, edit: Edit) -> Edit:
        earlier = self._edits.get(edit.memory_id)
        ids = edit.message_ids
        if edit.content is not None and earlier is not None:
            ids = tuple(dict.fromkeys(earlier.message_ids + ids))
        return replace(edit, before=self._before.get(edit.memory_id), message_ids=ids)

    def _has_effect(self, edit: Edit) -> bool:
        if edit.action == "update" and edit.before is not None:
            return _state(self._now[edit.memory_id]) != _state(edit.before)
        return edit.action == "insert" or edit.before is not None


def _first(later: _T | None, earlier: _T | None) -> _T | None:
    return earlier if later is None else later


def _state(memory: Memory) -> tuple[Any, ...]:
    # As JSON, in which 1 is not true.
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from
