"""Batches of memories for a model: similar ones together, and no more than it reads well."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from app.changes.duplicates import normalized_wording
from app.consolidation.scope import Similarity, StoredMemory

MAX_MEMORIES = 40
MAX_CHARACTERS = 24_000
"""Maximum length of a batch: about 6,000 tokens, which every model reads with attention."""

_EQUAL = 2.0
"""Score of near duplicates, above that of any similarity."""


def make_batches(
    memories: Sequence[StoredMemory], similarities: Iterable[Similarity]
) -> list[list[StoredMemory]]:
    """Return the memories of one namespace in batches that fit a model.

    The most similar memories are grouped first, as long as a group fits. Small groups share a
    batch, because fewer calls cost less. Memories that are too large for any batch are omitted.
    """
    groups = {memory.item_id: [memory] for memory in memories if _fit([memory])}
    for pair in sorted([*similarities, *_duplicates(memories)], key=lambda pair: -pair.score):
        one, other = groups.get(pair.one), groups.get(pair.other)
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
    return [sorted(batch, key=age) for batch in packed]


def age(memory: StoredMemory) -> tuple[datetime, int]:
    """Return a sort key that puts the oldest memory first."""
    return memory.created_at, memory.item_id


def _fit(memories: Sequence[StoredMemory]) -> bool:
    return (
        len(memories) <= MAX_MEMORIES
        and sum(memory.characters for memory in memories) <= MAX_CHARACTERS
    )


def _duplicates(memories: Iterable[StoredMemory]) -> list[Similarity]:
    """Return pairs of memories with the same normalized wording."""
    by_wording: dict[str, list[int]] = defaultdict(list)
    for stored in memories:
        by_wording[normalized_wording(stored.memory.content)].append(stored.item_id)
    pairs = (pair for ids in by_wording.values() for pair in pairwise(ids))
    return [Similarity(one, other, _EQUAL) for one, other in pairs]
