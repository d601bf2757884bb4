"""The memories that a consolidation compares, and the edits that it makes to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.changes.duplicates import Candidate
from app.conversations.call_habits import CallHabit
from app.conversations.memories import Basis, Edit, Memory, Rejection
from app.namespaces import StoredNamespace
from app.providers.embedder import Vector
from app.store.types import Address

PINNED = "is pinned"
FOREIGN = "is not a manager's"

_CHARACTERS_OF_ATTRIBUTES = 100
"""Characters of the id, kind, and dates that a model sees with a memory."""


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """A stored memory with the facts that decide about its treatment.

    `protection` is the reason why it must be neither rewritten nor deleted, None if it may be.
    """

    memory: Memory
    item_id: int
    created_at: datetime
    updated_at: datetime
    protection: str | None = None
    ttl: timedelta | None = None
    vector: Vector | None = None
    uses: int = 0
    last_used_at: datetime | None = None

    @property
    def candidate(self) -> Candidate:
        """The memory for a comparison with others."""
        return Candidate(self.memory.kind, self.memory.content, self.vector)

    @property
    def address(self) -> Address:
        """The address of its item."""
        return address_of(self.memory)

    @property
    def characters(self) -> int:
        """Its length in a prompt."""
        content = json.dumps(self.memory.content, ensure_ascii=False)
        return len(content) + _CHARACTERS_OF_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class Similarity:
    """The similarity of two memories, given by the ids of their items."""

    one: int
    other: int
    score: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class ConsolidationScope:
    """The memories to compare, by namespace, with their similarities.

    `changed` are the items that changed since the last consolidation, up to `until`; with
    `has_more`, others have changed, too. It `is_held` if a transaction that is still running may
    commit an earlier change, so that the next job cannot start at the end of this one.
    """

    memories: Mapping[StoredNamespace, Sequence[StoredMemory]]
    similarities: Mapping[StoredNamespace, Sequence[Similarity]]
    changed: frozenset[int]
    until: datetime | None = None
    has_more: bool = False
    is_held: bool = False

    @property
    def all(self) -> list[StoredMemory]:
        """The memories of all namespaces."""
        return [memory for memories in self.memories.values() for memory in memories]


@dataclass(frozen=True, slots=True)
class EditGroup:
    """Edits that are made together or not at all, and the memories that they rely on.

    `formal_edits` are those that lose nothing but form. `repeated` are edits of memories that only
    take over the times of those that they cover. `failure` is the reason why a model's answer led
    to no edits. It is `unanswered` if there was no usable answer at all. `habit` is the one that
    the model's replies reveal.
    """

    memories: Sequence[StoredMemory]
    edits: Sequence[Edit] = ()
    formal_edits: Sequence[Edit] = ()
    repeated: Sequence[Edit] = ()
    rejected: Sequence[Rejection] = ()
    failure: str | None = None
    unanswered: bool = False
    habit: CallHabit = CallHabit.UNKNOWN

    @property
    def basis(self) -> Basis:
        """The items on which the edits rely."""
        memories = (stored.memory for stored in self.memories)
        return tuple(
            (StoredNamespace(m.namespace or ""), m.key or "", m.version or 0) for m in memories
        )


def address_of(memory: Memory | Edit) -> Address:
    """Return the address of a stored memory, or of an edit's memory."""
    return Address(memory.namespace or StoredNamespace(""), memory.key or "")
