"""Merging of memories: duplicates without a model, or whole batches by a model.

A batch holds similar memories, and no more than a model reads well.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from app.changes.duplicates import articles, fingerprint, is_near_duplicate, normalized_wording
from app.changes.reconcile import reconcile
from app.consolidation.scope import PINNED, EditGroup, Similarity, StoredMemory
from app.conversations.dialogue import Ask
from app.conversations.memories import Edit, LLMTask, Memory, MemoryFormat, Rejection
from app.conversations.messages import lowest_class
from app.extraction.loop import propose
from app.extraction.prompt import DELETE, UPDATE
from app.namespaces import StoredNamespace

MAX_MEMORIES = 200
MAX_CHARACTERS = 40_000
"""Maximum length of a batch: about 10,000 tokens, or 150 memories of an ordinary length."""

_EQUAL = 2.0
"""Score of near duplicates, above that of any similarity."""


def merge_duplicates(memories: Iterable[StoredMemory]) -> list[EditGroup]:
    """Return the edits that merge exact and near duplicates among memories of one namespace.

    The oldest keeps its key. It gets the newest of the most complete wordings, and the highest
    importance.
    """
    by_wording: dict[tuple[str | None, MemoryFormat, str], list[StoredMemory]] = defaultdict(list)
    for stored in memories:
        if stored.protection is None or stored.protection == PINNED:
            memory = stored.memory
            key = memory.kind, memory.format, normalized_wording(memory.content)
            by_wording[key].append(stored)
    return [
        _merge(group)
        for similar in by_wording.values()
        for group in _group_duplicates(sorted(similar, key=_precedence))
        if len(group) > 1
    ]


async def merge_batch(
    ask: Ask, batch: Sequence[StoredMemory], task: LLMTask, *, namespace: StoredNamespace
) -> EditGroup:
    """Return a model's edits of a batch; `task` has its instructions. Raises the errors of `ask`.

    If an insert or update could not be carried out, there are no edits: the model may have meant it
    to replace a memory that it deletes.
    """
    by_id = {f"m{number}": stored for number, stored in enumerate(batch, start=1)}
    shown = [replace(stored.memory, id=id_) for id_, stored in by_id.items()]
    protected = {id_: stored.protection for id_, stored in by_id.items() if stored.protection}
    instructions = "\n\n".join(filter(None, [task.instructions, _protect(protected)]))
    proposed = await propose(ask, replace(task, existing=shown, instructions=instructions))
    allowed = [edit for edit in proposed.edits if edit.memory_id not in protected]
    forbidden = [
        Rejection(_tool(edit), f"the memory {protected[edit.memory_id]}")
        for edit in proposed.edits
        if edit.memory_id in protected
    ]
    rejected = (*proposed.rejected, *forbidden)
    failure = next((call.reason for call in rejected if call.tool not in {DELETE, ""}), None)
    if failure is not None:
        return EditGroup(batch, rejected=rejected, failure=failure)
    singletons = {kind.name for kind in task.kinds if kind.singleton}
    reconciled = await asyncio.to_thread(
        reconcile, allowed, shown, namespace=namespace, singletons=singletons
    )
    edits = tuple(_with_sources(edit, shown) for edit in reconciled.edits.values())
    return EditGroup(
        batch, edits, repeated=reconciled.repeated, rejected=rejected, habit=proposed.habit
    )


def _with_sources(edit: Edit, shown: Sequence[Memory]) -> Edit:
    """Return an edit; a new memory whose sources the model does not name may rest on any."""
    if edit.action == "insert" and not edit.sources:
        return replace(edit, sources=tuple(shown))
    return edit


def _precedence(stored: StoredMemory) -> tuple[bool, datetime, int]:
    """Return a sort key that puts memories to keep first: pinned ones, then the oldest."""
    return stored.protection is None, *age(stored)


def _group_duplicates(memories: Iterable[StoredMemory]) -> list[list[StoredMemory]]:
    """Group memories of one wording so that any two of a group are duplicates."""
    groups: list[list[StoredMemory]] = []
    for stored in memories:
        for group in groups:
            if stored.protection is None and all(
                _are_duplicates(stored, other) for other in _distinct_forms(group)
            ):
                group.append(stored)
                break
        else:
            groups.append([stored])
    return groups


def _distinct_forms(group: Sequence[StoredMemory]) -> list[StoredMemory]:
    """Return one memory of each fingerprint and time, for comparisons with the whole group."""
    forms = {
        (fingerprint(stored.memory.content), stored.memory.valid_from): stored for stored in group
    }
    return list(forms.values())


def _are_duplicates(a: StoredMemory, b: StoredMemory) -> bool:
    """Return whether two memories are duplicates, with the same validity and lifetime."""
    since = {a.memory.valid_from, b.memory.valid_from} - {None}
    same_time = len(since) < 2 and a.memory.valid_to == b.memory.valid_to and a.ttl == b.ttl
    return same_time and is_near_duplicate(a.candidate, b.candidate)


def _merge(group: Sequence[StoredMemory]) -> EditGroup:
    kept, *others = group
    before = kept.memory
    newest = kept if kept.protection else max(group, key=_completeness)
    known = [s.memory.importance for s in group if s.memory.importance is not None]
    since = [s.memory.valid_from for s in group if s.memory.valid_from is not None]
    after = replace(
        _to_edit(before),
        content=newest.memory.content,
        importance=max(known, default=None),
        valid_from=next(iter(since), None),
        sources=tuple(other.memory for other in others),
    )
    changes = replace(after, sources=()) != _to_edit(before) or _widens_sources(before, after)
    edits = [after] if changes and not kept.protection else []
    for other in others:
        reason = f"duplicate of {before.key}"
        edits.append(replace(_to_edit(other.memory), content=None, reason=reason))
    kept_forms = {fingerprint(memory.content) for memory in (before, newest.memory)}
    formal_edits = [
        edit for edit in edits
        if edit.before and fingerprint(edit.before.content) in kept_forms
        and (edit.content is None or len(kept_forms) == 1)
    ]  # fmt: skip
    return EditGroup(group, edits, formal_edits)


def _widens_sources(before: Memory, after: Edit) -> bool:
    """Return whether the sources were said at other times, or are of lower classes."""
    said = [t for m in after.sources for t in (m.said_first, m.said_last) if t is not None]
    lowest = lowest_class(m.source_class for m in (before, *after.sources))
    first, last = before.said_first, before.said_last
    outside = any(first is None or last is None or not first <= t <= last for t in said)
    return outside or lowest != before.source_class


def _completeness(stored: StoredMemory) -> tuple[int, datetime]:
    """Return a sort key of wordings: "the dog" is more complete than "dog"; then the newest."""
    present = [article for article in articles(stored.memory.content) if article is not None]
    return len(present), stored.updated_at


def _to_edit(memory: Memory) -> Edit:
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


def _protect(protected: Iterable[str]) -> str | None:
    ids = ", ".join(protected)
    return f"These memories are only for reading, leave them as they are: {ids}." if ids else None


def _tool(edit: Edit) -> str:
    match edit.action:
        case "delete":
            return DELETE
        case "insert":
            return edit.kind or ""
        case "update":
            return UPDATE


def make_batches(
    memories: Sequence[StoredMemory], similarities: Iterable[Similarity]
) -> list[list[StoredMemory]]:
    """Return the memories of one namespace in batches that fit a model.

    The most similar memories are grouped first, as long as a group fits. Small groups share a
    batch, because fewer calls cost less. Memories that are too large for any batch are omitted.
    """
    pairs = [*similarities, *_duplicates(memories)]
    groups = {memory.item_id: [memory] for memory in memories if _fit([memory])}
    for pair in sorted(pairs, key=lambda pair: -pair.score):
        one, other = groups.get(pair.one), groups.get(pair.other)
        if one is not None and other is not None and one is not other and _fit([*one, *other]):
            one += other
            groups |= {memory.item_id: one for memory in other}
    _move_strays(groups, pairs)
    distinct = {id(group): group for group in groups.values()}
    packed: list[list[StoredMemory]] = []
    for group in sorted(distinct.values(), key=len, reverse=True):
        room = next((batch for batch in packed if _fit([*batch, *group])), None)
        if room is None:
            packed.append(list(group))
        else:
            room += group
    return [sorted(batch, key=age) for batch in packed]


def _move_strays(groups: dict[int, list[StoredMemory]], similarities: Iterable[Similarity]) -> None:
    """Move each memory into the group whose memories resemble it most, taken together.

    A pair that is a little more similar may have drawn it into a large group that the others of
    its subject no longer fit into.
    """
    ties: dict[int, dict[int, float]] = defaultdict(dict)
    for pair in similarities:
        for one, other in ((pair.one, pair.other), (pair.other, pair.one)):
            ties[one][other] = max(pair.score, ties[one].get(other, 0.0))
    for item_id, others in ties.items():
        own = groups.get(item_id)
        if own is None:
            continue
        scores: dict[int, float] = defaultdict(float)
        for other, score in others.items():
            if other in groups:
                scores[id(groups[other])] += score
        nearest = {id(groups[other]): groups[other] for other in others if other in groups}
        best = max(nearest, key=lambda group: scores[group], default=id(own))
        memory = next(stored for stored in own if stored.item_id == item_id)
        if scores[best] > scores[id(own)] and _fit([*nearest[best], memory]):
            own.remove(memory)
            nearest[best].append(memory)
            groups[item_id] = nearest[best]


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
