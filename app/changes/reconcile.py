"""From what a model proposed to the edits that are to be made: no repeats, no empty updates."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from app.changes.duplicates import DuplicateIndex
from app.conversations.types import Change, Delete, Existing, Insert, Update

Basis: TypeAlias = tuple[tuple[str, str, int], ...]
"""Namespaces, keys and versions of items."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The next state of one memory: `before` is None for a new one, `content` for an ended one.

    `namespace` is a stored one; it and `key` are None where memories are kept nowhere. `basis`
    are the items, with their versions, without which the edit would lose something.
    """

    before: Existing | None
    namespace: str | None
    key: str | None
    kind: str | None
    content: dict[str, Any] | None
    importance: float | None = None
    valid_from: datetime | None = None
    message_ids: tuple[str, ...] = ()
    reason: str | None = None
    basis: Basis = ()

    @property
    def action(self) -> Literal["insert", "update", "delete"]:
        """What the edit does to the item."""
        if self.content is None:
            return "delete"
        return "insert" if self.before is None else "update"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Edits by the id of their memory, and how many proposals would change nothing."""

    edits: Mapping[str, Edit]
    unchanged: int = 0

    @property
    def inserts(self) -> dict[str, Edit]:
        """Those that add a memory."""
        return {id_: edit for id_, edit in self.edits.items() if edit.action == "insert"}


def reconcile(
    changes: Iterable[Change],
    existing: Sequence[Existing],
    *,
    namespace: str | None = None,
    single: Collection[str] = (),
) -> Reconciled:
    """Return the edits that proposals come to; `single` names kinds of one document.

    New memories go to `namespace`.

    An insert that repeats a memory, kept or inserted before, adds what it knows of importance
    and time, or nothing; one that repeats a memory that is to be deleted keeps it. An insert of
    a single kind that has its document is merged into it. Existing memories without a version
    are written with the rest unless they are deleted: a manager's default.
    """
    reconciling = _Reconciling({memory.id: memory for memory in existing}, namespace, single)
    for memory in filter(_is_unwritten, existing):
        reconciling.edits[memory.id] = Edit(
            None, memory.namespace, memory.key, memory.kind, memory.content
        )
    inserts: list[Insert] = []
    for change in changes:
        match change:
            case Update():
                reconciling.update(change)
            case Delete():
                reconciling.delete(change)
            case Insert():
                inserts.append(change)
    for insert in inserts:
        reconciling.insert(insert)
    return Reconciled(reconciling.edits, reconciling.unchanged)


@dataclass(slots=True)
class _Reconciling:
    """What a reconciliation has come to so far."""

    memories: Mapping[str, Existing]
    namespace: str | None
    single: Collection[str]
    edits: dict[str, Edit] = field(default_factory=dict)
    unchanged: int = 0
    known: DuplicateIndex = field(init=False)

    def __post_init__(self) -> None:
        self.known = DuplicateIndex(self.memories.values())

    def update(self, change: Update) -> None:
        memory = self.memories[change.memory_id]
        edit = Edit(
            before=None if _is_unwritten(memory) else memory,
            namespace=memory.namespace,
            key=memory.key,
            kind=change.kind or memory.kind,
            content=change.content,
            importance=_known(change.importance, memory.importance),
            valid_from=change.valid_from or memory.valid_from,
            message_ids=change.message_ids,
        )
        if edit.before is not None and _says(edit) == _says(memory):
            self.edits.pop(memory.id, None)
            self.unchanged += 1
        elif memory.id in self.edits and _says(edit) == _says(self.edits[memory.id]):
            self.unchanged += 1
        else:
            self.edits[memory.id] = edit
        self.known.put(replace(memory, content=self._content(memory)))

    def delete(self, change: Delete) -> None:
        memory = self.memories[change.memory_id]
        self.edits.pop(memory.id, None)
        self.known.put(memory)  # unchanged, so that saying it again keeps it
        if not _is_unwritten(memory):
            self.edits[memory.id] = Edit(
                before=memory,
                namespace=memory.namespace,
                key=memory.key,
                kind=memory.kind,
                content=None,
                reason=change.reason,
            )

    def insert(self, change: Insert) -> None:
        edit = self._new(change)
        repeated = self._document(change.kind) or self._repeated(edit)
        if repeated is None:
            self.edits[change.memory_id] = edit
            self.known.put(Existing(change.memory_id, edit.kind, edit.content or {}))
        elif repeated in self.memories:
            self._add_to_memory(self.memories[repeated], change)
        else:
            self._add_to_insert(repeated, change)

    def _new(self, change: Insert) -> Edit:
        return Edit(
            before=None,
            namespace=self.namespace,
            key=change.kind if change.kind in self.single else uuid4().hex,
            kind=change.kind,
            content=change.content,
            importance=change.importance,
            valid_from=change.valid_from,
            message_ids=change.message_ids,
        )

    def _document(self, kind: str) -> str | None:
        """Return the id of the document of a single kind, where there is one."""
        if kind not in self.single:
            return None
        kept = (id_ for id_, memory in self.memories.items() if memory.kind == kind)
        inserted = (id_ for id_, edit in self.edits.items() if edit.kind == kind)
        return next(kept, None) or next(inserted, None)

    def _repeated(self, insert: Edit) -> str | None:
        """Return the id of a memory, kept or inserted, that says what an insert says."""
        return self.known.find_duplicate(insert.kind, insert.content or {})

    def _content(self, memory: Existing) -> dict[str, Any]:
        """Return what a memory will say; one that is to be deleted, what it says now."""
        edit = self.edits.get(memory.id)
        return memory.content if edit is None or edit.content is None else edit.content

    def _add_to_memory(self, memory: Existing, change: Insert) -> None:
        edit = self.edits.get(memory.id)
        if edit is not None and edit.action == "delete":
            content = change.content  # said anew: the memory is kept, in these words
        elif change.kind in self.single:
            content = {**self._content(memory), **change.content}
        else:
            content = self._content(memory)
        now = edit or memory
        self.update(
            Update(
                memory.id,
                memory.kind,
                content,
                _larger(now.importance, change.importance),
                now.valid_from or change.valid_from,
                change.message_ids,
            )
        )

    def _add_to_insert(self, inserted: str, change: Insert) -> None:
        edit = self.edits[inserted]
        content = edit.content or {}
        self.edits[inserted] = replace(
            edit,
            content={**content, **change.content} if change.kind in self.single else content,
            importance=_larger(edit.importance, change.importance),
            valid_from=edit.valid_from or change.valid_from,
            message_ids=_both(edit.message_ids, change.message_ids),
        )
        self.unchanged += 1
        self.known.put(Existing(inserted, edit.kind, self.edits[inserted].content or {}))


def _is_unwritten(memory: Existing) -> bool:
    """Tell a manager's default, which is not stored yet, from what a request brings along."""
    return memory.namespace is not None and memory.version is None


def _says(memory: Existing | Edit) -> tuple[str, float | None, datetime | None]:
    """Return what makes a memory the same as another; JSON's true is not its 1."""
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from


def _known(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _larger(first: float | None, second: float | None) -> float | None:
    known = [number for number in (first, second) if number is not None]
    return max(known, default=None)


def _both(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
