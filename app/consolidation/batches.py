"""Memories that are kept already: which are looked at together, and which become one."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Self

from app.changes.duplicates import (
    Candidate,
    articles,
    fingerprint,
    is_near_duplicate,
    normalized_wording,
)
from app.changes.memories import to_memory
from app.conversations.types import Basis, Edit, Memory, MemoryFormat, Rejection
from app.db.database import Row
from app.namespaces import StoredNamespace
from app.providers.embeddings.base import Vector
from app.store.repository import read_item
from app.store.types import Item

MAX_MEMORIES = 40
MAX_CHARACTERS = 24_000
"""Of one batch: some 6,000 tokens, which every model reads with attention."""

_CHARACTERS_BESIDE = 100
"""What a memory is shown with: its id, kind and dates."""

_SAME = 2.0
"""Strength of a tie between near duplicates: stronger than any similarity."""


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A stored memory with what decides how it may be treated.

    `fixed` says why it is neither rewritten nor deleted, None where it may be.
    """

    existing: Memory
    item_id: int
    created_at: datetime
    updated_at: datetime
    fixed: str | None = None
    valid_to: datetime | None = None
    ttl: timedelta | None = None
    vector: Vector | None = None
    uses: int = 0
    last_used_at: datetime | None = None

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of items with their uses and the vector of the first passage."""
        item = read_item(row)
        existing = to_memory(item, f"i{item.id}")
        embedding = row["embedding"]
        return cls(
            existing,
            item.id,
            item.created_at,
            item.updated_at,
            _fixed(item, existing),
            item.metadata.valid_to,
            item.ttl,
            None if embedding is None else embedding.to_numpy(),
            row["uses"] or 0,
            row["last_used_at"],
        )

    @property
    def candidate(self) -> Candidate:
        """The memory as one to compare."""
        return Candidate(self.existing.kind, self.existing.content, self.vector)

    @property
    def characters(self) -> int:
        """How much of a prompt it takes."""
        return len(json.dumps(self.existing.content, ensure_ascii=False)) + _CHARACTERS_BESIDE


@dataclass(frozen=True, slots=True)
class Tie:
    """Two memories that are near one another, by the numbers of their items."""

    one: int
    other: int
    strength: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class Part:
    """Edits that are made together or not at all, and the memories that they rest on.

    `formal` of them are known to lose nothing but form. `failure` says why there are none where
    a model did not do its work.
    """

    memories: Sequence[StoredMemory]
    edits: Sequence[Edit] = ()
    formal: Sequence[Edit] = ()
    rejected: Sequence[Rejection] = ()
    failure: str | None = None

    @property
    def basis(self) -> Basis:
        """The items that the edits rest on."""
        found = (memory.existing for memory in self.memories)
        return tuple(
            (StoredNamespace(m.namespace or ""), m.key or "", m.version or 0) for m in found
        )


def batches(memories: Sequence[StoredMemory], ties: Iterable[Tie]) -> list[list[StoredMemory]]:
    """Return memories of one namespace in batches that fit a model, what is near kept together.

    The strongest ties hold first, and none makes a batch too large; what is left is put beside
    others, because fewer calls cost less. Memories too large for any batch are left out.
    """
    groups = {memory.item_id: [memory] for memory in memories if _fit([memory])}
    for tie in sorted([*ties, *_same(memories)], key=lambda tie: -tie.strength):
        one, other = groups.get(tie.one), groups.get(tie.other)
        if one is not None and other is not None and one is not other and _fit([*one, *other]):
            one += other
            groups |= {memory.item_id: one for memory in other}
    distinct = {id(group): group for group in groups.values()}
    packed: list[list[StoredMemory]] = []
    for group in sorted(distinct.values(), key=len, reverse=True):
        room = next((batch for batch in packed if _fit([*batch, *group])), None)
        if room is None:
            packed.append(list(group))
        else:
            room += group
    return [sorted(batch, key=_age) for batch in packed]


def merges(memories: Iterable[StoredMemory]) -> list[Part]:
    """Return how exact and near duplicates among memories of one namespace become one each.

    The oldest keeps its key, and takes on the newest of the fullest wordings and the highest
    importance.
    """
    alike: dict[tuple[str | None, MemoryFormat, str], list[StoredMemory]] = defaultdict(list)
    for memory in memories:
        if memory.fixed is None or memory.fixed == _PINNED:
            kind = memory.existing.kind, memory.existing.format
            alike[*kind, normalized_wording(memory.existing.content)].append(memory)
    return [
        _merged(same)
        for some in alike.values()
        for same in _duplicates(sorted(some, key=_precedence))
        if len(same) > 1
    ]


_PINNED = "is pinned"
_FOREIGN = "is not a manager's"


def _fixed(item: Item, existing: Memory) -> str | None:
    if item.metadata.pinned:
        return _PINNED
    is_text = existing.content.keys() == {"content"}  # as LangMem's tools write it
    return _FOREIGN if existing.format is MemoryFormat.VALUE and not is_text else None


def _fit(memories: Sequence[StoredMemory]) -> bool:
    return (
        len(memories) <= MAX_MEMORIES
        and sum(memory.characters for memory in memories) <= MAX_CHARACTERS
    )


def _same(memories: Iterable[StoredMemory]) -> list[Tie]:
    """Return ties between memories of one wording."""
    alike: dict[str, list[int]] = defaultdict(list)
    for memory in memories:
        alike[normalized_wording(memory.existing.content)].append(memory.item_id)
    return [Tie(one, other, _SAME) for ids in alike.values() for one, other in pairwise(ids)]


def _age(memory: StoredMemory) -> tuple[datetime, int]:
    return memory.created_at, memory.item_id


def _precedence(memory: StoredMemory) -> tuple[bool, datetime, int]:
    """Order memories by who stays: pinned ones, then the oldest."""
    return memory.fixed is None, *_age(memory)


def _duplicates(memories: Iterable[StoredMemory]) -> list[list[StoredMemory]]:
    """Group memories of one wording so that any two of a group are duplicates."""
    groups: list[list[StoredMemory]] = []
    for memory in memories:
        for group in groups:
            if memory.fixed is None and all(_are_one(memory, other) for other in _forms(group)):
                group.append(memory)
                break
        else:
            groups.append([memory])
    return groups


def _forms(group: Sequence[StoredMemory]) -> list[StoredMemory]:
    """Return one memory of each fingerprint and time, whoever is like them is like all."""
    return list({_form(memory): memory for memory in group}.values())


def _form(memory: StoredMemory) -> tuple[object, ...]:
    return fingerprint(memory.existing.content), memory.existing.valid_from


def _are_one(a: StoredMemory, b: StoredMemory) -> bool:
    """Tell whether two memories say the same of the same time, for as long."""
    since = {a.existing.valid_from, b.existing.valid_from} - {None}
    same_time = len(since) < 2 and a.valid_to == b.valid_to and a.ttl == b.ttl
    return same_time and is_near_duplicate(a.candidate, b.candidate)


def _merged(same: Sequence[StoredMemory]) -> Part:
    kept, *others = same
    before = kept.existing
    newest = kept if kept.fixed else max(same, key=_wording)
    known = [m.existing.importance for m in same if m.existing.importance is not None]
    since = [m.existing.valid_from for m in same if m.existing.valid_from is not None]
    after = replace(
        _edit(before),
        content=newest.existing.content,
        importance=max(known, default=None),
        valid_from=next(iter(since), None),
    )
    edits = [] if kept.fixed or after == _edit(before) else [after]
    for other in others:
        reason = f"says what {before.key} says"
        edits.append(replace(_edit(other.existing), content=None, reason=reason))
    there = {fingerprint(memory.content) for memory in (before, newest.existing)}
    formal = [
        edit for edit in edits
        if edit.before and fingerprint(edit.before.content) in there
        and (edit.content is None or len(there) == 1)
    ]  # fmt: skip
    return Part(same, edits, formal)


def _wording(memory: StoredMemory) -> tuple[int, datetime]:
    """Order wordings by how exact they are, then by how new: "dog" is less than "the dog"."""
    present = [article for article in articles(memory.existing.content) if article is not None]
    return len(present), memory.updated_at


def _edit(memory: Memory) -> Edit:
    return Edit(
        memory_id=memory.id,
        before=memory,
        kind=memory.kind,
        content=memory.content,
        importance=memory.importance,
        valid_from=memory.valid_from,
        namespace=memory.namespace,
        key=memory.key,
    )
