"""From what a model proposed to the edits that are to be made: no repeats, no empty updates."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from app.changes.duplicates import DuplicateIndex
from app.conversations.types import Edit, Memory
from app.namespaces import StoredNamespace


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
    edits: Iterable[Edit],
    existing: Sequence[Memory],
    *,
    namespace: StoredNamespace | None = None,
    singletons: Collection[str] = (),
) -> Reconciled:
    """Return the edits that proposals come to; `singletons` names kinds of one document.

    New memories go to `namespace`.

    An insert that repeats a memory, kept or inserted before, adds what it knows of importance
    and time, or nothing; one that repeats a memory that is to be deleted keeps it. An insert of
    a single kind that has its document is merged into it. Existing memories without a version
    are written with the rest unless they are deleted: a manager's default.
    """
    reconciling = _Reconciling({memory.id: memory for memory in existing}, namespace, singletons)
    for memory in filter(_is_unwritten, existing):
        reconciling.edits[memory.id] = Edit(
            memory_id=memory.id,
            kind=memory.kind,
            content=memory.content,
            namespace=memory.namespace,
            key=memory.key,
        )
    inserts: list[Edit] = []
    for edit in edits:
        match edit.action:
            case "update":
                reconciling.update(edit)
            case "delete":
                reconciling.delete(edit)
            case "insert":
                inserts.append(edit)
    for insert in inserts:
        reconciling.insert(insert)
    return Reconciled(reconciling.edits, reconciling.unchanged)


@dataclass(slots=True)
class _Reconciling:
    """What a reconciliation has come to so far."""

    memories: Mapping[str, Memory]
    namespace: StoredNamespace | None
    singletons: Collection[str]
    edits: dict[str, Edit] = field(default_factory=dict)
    unchanged: int = 0
    known: DuplicateIndex = field(init=False)

    def __post_init__(self) -> None:
        self.known = DuplicateIndex(self.memories.values())

    def update(self, proposed: Edit) -> None:
        memory = self.memories[proposed.memory_id]
        edit = replace(
            proposed,
            before=None if _is_unwritten(memory) else memory,
            namespace=memory.namespace,
            key=memory.key,
            kind=proposed.kind or memory.kind,
            importance=_known(proposed.importance, memory.importance),
            valid_from=proposed.valid_from or memory.valid_from,
        )
        if edit.before is not None and _says(edit) == _says(memory):
            self.edits.pop(memory.id, None)
            self.unchanged += 1
        elif memory.id in self.edits and _says(edit) == _says(self.edits[memory.id]):
            self.unchanged += 1
        else:
            self.edits[memory.id] = edit
        self.known.put(replace(memory, content=self._content(memory)))

    def delete(self, proposed: Edit) -> None:
        memory = self.memories[proposed.memory_id]
        self.edits.pop(memory.id, None)
        self.known.put(memory)  # unchanged, so that saying it again keeps it
        if not _is_unwritten(memory):
            self.edits[memory.id] = replace(
                proposed,
                before=memory,
                namespace=memory.namespace,
                key=memory.key,
                kind=memory.kind,
            )

    def insert(self, proposed: Edit) -> None:
        repeated = self._document(proposed.kind) or self._repeated(proposed)
        if repeated is None:
            key = proposed.kind if proposed.kind in self.singletons else uuid4().hex
            self.edits[proposed.memory_id] = replace(proposed, namespace=self.namespace, key=key)
            self.known.put(Memory(proposed.memory_id, proposed.kind, proposed.content or {}))
        elif repeated in self.memories:
            self._add_to_memory(self.memories[repeated], proposed)
        else:
            self._add_to_insert(repeated, proposed)

    def _document(self, kind: str | None) -> str | None:
        """Return the id of the document of a single kind, where there is one."""
        if kind not in self.singletons:
            return None
        kept = (id_ for id_, memory in self.memories.items() if memory.kind == kind)
        inserted = (id_ for id_, edit in self.edits.items() if edit.kind == kind)
        return next(kept, None) or next(inserted, None)

    def _repeated(self, insert: Edit) -> str | None:
        """Return the id of a memory, kept or inserted, that says what an insert says."""
        return self.known.find_duplicate(insert.kind, insert.content or {})

    def _content(self, memory: Memory) -> dict[str, Any]:
        """Return what a memory will say; one that is to be deleted, what it says now."""
        edit = self.edits.get(memory.id)
        return memory.content if edit is None or edit.content is None else edit.content

    def _add_to_memory(self, memory: Memory, insert: Edit) -> None:
        edit = self.edits.get(memory.id)
        if edit is not None and edit.action == "delete":
            content = insert.content  # said anew: the memory is kept, in these words
        elif insert.kind in self.singletons:
            content = {**self._content(memory), **(insert.content or {})}
        else:
            content = self._content(memory)
        now = edit or memory
        self.update(
            Edit(
                memory_id=memory.id,
                before=memory,
                kind=memory.kind,
                content=content,
                importance=_larger(now.importance, insert.importance),
                valid_from=now.valid_from or insert.valid_from,
                message_ids=insert.message_ids,
            )
        )

    def _add_to_insert(self, inserted: str, insert: Edit) -> None:
        edit = self.edits[inserted]
        content = edit.content or {}
        is_document = insert.kind in self.singletons
        self.edits[inserted] = replace(
            edit,
            content=content | (insert.content or {}) if is_document else content,
            importance=_larger(edit.importance, insert.importance),
            valid_from=edit.valid_from or insert.valid_from,
            message_ids=_both(edit.message_ids, insert.message_ids),
        )
        self.unchanged += 1
        self.known.put(Memory(inserted, edit.kind, self.edits[inserted].content or {}))


def _is_unwritten(memory: Memory) -> bool:
    """Tell a manager's default, which is not stored yet, from what a request brings along."""
    return memory.namespace is not None and memory.version is None


def _says(memory: Memory | Edit) -> tuple[str, float | None, datetime | None]:
    """Return what makes a memory the same as another; JSON's true is not its 1."""
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from


def _known(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _larger(first: float | None, second: float | None) -> float | None:
    known = [number for number in (first, second) if number is not None]
    return max(known, default=None)


def _both(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
