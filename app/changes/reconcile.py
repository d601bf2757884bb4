"""Reconciliation of proposed edits with existing memories: no duplicates, no empty updates.

The circuit breaker: a job that would overwrite many memories waits for a review instead.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from app.changes.duplicates import DuplicateIndex
from app.conversations.memories import Edit, Memory
from app.json_values import JsonObject
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate

REVIEW_REQUESTED = 'A review was asked for (apply: "review").'

HARMLESS = 2
"""Number of memories, or of a document's fields, that may be lost regardless of their share."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The edits to apply, by memory id, and the number of proposals that change nothing.

    Those that repeat what a memory says are `repeated`: they only show when it was said again.
    """

    edits: Mapping[str, Edit]
    unchanged: int = 0
    repeated: tuple[Edit, ...] = field(default=(), compare=False)

    @property
    def inserts(self) -> dict[str, Edit]:
        """The edits that add a memory."""
        return {id_: edit for id_, edit in self.edits.items() if edit.action == "insert"}


def reconcile(
    edits: Iterable[Edit],
    existing: Sequence[Memory],
    *,
    namespace: StoredNamespace | None = None,
    singletons: Collection[str] = (),
) -> Reconciliation:
    """Return the edits to apply for proposed ones; `singletons` are kinds with one document.

    New memories go to `namespace`.

    An insert that duplicates a memory, stored or inserted, adds only its importance and time, or
    nothing. One that duplicates a memory with a proposed delete keeps the memory. An insert of a
    singleton kind is merged into the existing document. Existing memories without a version, which
    are a manager's default, are written with the rest, unless they are deleted.
    """
    reconciler = _Reconciler({memory.id: memory for memory in existing}, namespace, singletons)
    for memory in filter(_is_unwritten, existing):
        reconciler.edits[memory.id] = Edit(
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
                reconciler.update(edit)
            case "delete":
                reconciler.delete(edit)
            case "insert":
                inserts.append(edit)
    for insert in inserts:
        reconciler.insert(insert)
    return Reconciliation(reconciler.edits, reconciler.unchanged, tuple(reconciler.repeated))


@dataclass(slots=True)
class _Reconciler:
    """A reconciliation in progress."""

    memories: Mapping[str, Memory]
    namespace: StoredNamespace | None
    singletons: Collection[str]
    edits: dict[str, Edit] = field(default_factory=dict)
    unchanged: int = 0
    repeated: list[Edit] = field(default_factory=list)
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
            importance=_first_known(proposed.importance, memory.importance),
            valid_from=proposed.valid_from or memory.valid_from,
        )
        if edit.before is not None and _state(edit) == _state(memory):
            self.edits.pop(memory.id, None)
            self.unchanged += bool(edit.message_ids or not edit.sources)  # not if it covers others
            self.repeated.append(edit)
        elif memory.id in self.edits and _state(edit) == _state(self.edits[memory.id]):
            self.unchanged += 1
        else:
            self.edits[memory.id] = edit
        self.known.put(replace(memory, content=self._content(memory)))

    def delete(self, proposed: Edit) -> None:
        memory = self.memories[proposed.memory_id]
        self.edits.pop(memory.id, None)
        self.known.put(memory)  # with its stored content, so that an equal insert keeps it
        if not _is_unwritten(memory):
            self.edits[memory.id] = replace(
                proposed,
                before=memory,
                namespace=memory.namespace,
                key=memory.key,
                kind=memory.kind,
            )

    def insert(self, proposed: Edit) -> None:
        duplicated = self._document(proposed.kind) or self._duplicate(proposed)
        if duplicated is None:
            key = proposed.kind if proposed.kind in self.singletons else uuid4().hex
            self.edits[proposed.memory_id] = replace(proposed, namespace=self.namespace, key=key)
            self.known.put(Memory(proposed.memory_id, proposed.kind, proposed.content or {}))
        elif duplicated in self.memories:
            self._add_to_memory(self.memories[duplicated], proposed)
        else:
            self._add_to_insert(duplicated, proposed)

    def _document(self, kind: str | None) -> str | None:
        """Return the id of the document of a singleton kind, if it exists."""
        if kind not in self.singletons:
            return None
        kept = (id_ for id_, memory in self.memories.items() if memory.kind == kind)
        inserted = (id_ for id_, edit in self.edits.items() if edit.kind == kind)
        return next(kept, None) or next(inserted, None)

    def _duplicate(self, insert: Edit) -> str | None:
        """Return the id of a memory, stored or inserted, that an insert duplicates."""
        return self.known.find_duplicate(insert.kind, insert.content or {})

    def _content(self, memory: Memory) -> JsonObject:
        """Return a memory's content after its edit, unless that is a delete."""
        edit = self.edits.get(memory.id)
        return memory.content if edit is None or edit.content is None else edit.content

    def _add_to_memory(self, memory: Memory, insert: Edit) -> None:
        edit = self.edits.get(memory.id)
        if edit is not None and edit.action == "delete":
            content = insert.content  # the memory is kept, in the new wording
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
                sources=(*(edit.sources if edit else ()), *insert.sources),
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
            message_ids=_union(edit.message_ids, insert.message_ids),
            sources=(*edit.sources, *insert.sources),
        )
        self.unchanged += 1
        self.known.put(Memory(inserted, edit.kind, self.edits[inserted].content or {}))


def _is_unwritten(memory: Memory) -> bool:
    """Return whether a memory is a manager's default, which is not stored yet."""
    return memory.namespace is not None and memory.version is None


def _state(memory: Memory | Edit) -> tuple[str, float | None, PartialDate | None]:
    """Return a comparable state; as JSON, in which true differs from 1."""
    return json.dumps(memory.content, sort_keys=True), memory.importance, memory.valid_from


def _first_known(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _larger(first: float | None, second: float | None) -> float | None:
    known = [number for number in (first, second) if number is not None]
    return max(known, default=None)


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


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
