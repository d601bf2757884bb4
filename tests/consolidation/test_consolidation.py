from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.consolidation.merge import (
    MAX_CHARACTERS,
    MAX_MEMORIES,
    make_batches,
    merge_batch,
    merge_duplicates,
)
from app.consolidation.scope import EditGroup, Similarity, StoredMemory
from app.conversations.dialogue import RefusalError
from app.conversations.memories import Memory, MemoryFormat
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate, Precision
from tests.support.scripted_model import (
    NOTHING,
    ScriptedModel,
    calls,
    delete,
    insert,
    says,
    task,
    update,
)

START = datetime(2026, 1, 1, tzinfo=UTC)

USERS = StoredNamespace("users\x1f")


def stored(
    number: int, text: str, *, protection: str | None = None, **details: Any
) -> StoredMemory:
    """Return the memory that was written as the `number`th."""
    written = START + timedelta(minutes=number)
    lasting = {name: details.pop(name) for name in ("ttl",) if name in details}
    existing = Memory(
        **{
            "id": f"i{number}",
            "kind": "memory",
            "content": {"content": text},
            "namespace": "users\x1f",
            "key": f"k{number}",
            "version": 1,
            "updated_at": written,
            **details,
        }
    )
    return StoredMemory(existing, number, written, written, protection, **lasting)


def numbers(found: Sequence[Sequence[StoredMemory]]) -> list[list[int]]:
    return sorted([memory.item_id for memory in batch] for batch in found)


def outcome(part: EditGroup) -> dict[str, dict[str, Any] | None]:
    """Return the new contents of the edited memories by their keys."""
    return {edit.key or "": edit.content for edit in part.edits}


def test_near_memories_share_a_batch_if_not_all_fit() -> None:
    memories = [stored(n, f"fact {n}") for n in range(MAX_MEMORIES + 20)]
    last = MAX_MEMORIES + 19
    ties = [Similarity(0, last, 0.9), Similarity(1, last - 1, 0.8)]
    first, second = sorted(make_batches(memories, ties), key=len)
    assert [len(first), len(second)] == [20, MAX_MEMORIES]
    both = [{m.item_id for m in batch} for batch in (first, second)]
    assert any({0, last} <= batch for batch in both)
    assert any({1, last - 1} <= batch for batch in both)


def test_a_group_too_large_is_split_at_its_weakest_tie() -> None:
    half = MAX_MEMORIES // 2 + 1
    memories = [stored(n, f"fact {n}") for n in range(2 * half)]
    chains = [Similarity(n, n + 1, 0.9) for n in range(2 * half - 1) if n != half - 1]
    bridge = Similarity(half - 1, half, 0.5)
    assert numbers(make_batches(memories, [bridge, *chains])) == [
        list(range(half)),
        list(range(half, 2 * half)),
    ]


def test_a_subject_stays_together_though_one_of_its_memories_has_a_nearer_neighbor() -> None:
    size = MAX_CHARACTERS // 10
    memories = [stored(n, "x" * (size - 200)) for n in range(13)]
    chain = [Similarity(n, n + 1, 0.9) for n in range(8)]  # 0 to 8, nearly a whole batch
    subject = {9, 10, 11, 12}
    ties = [Similarity(one, other, 0.6) for one in subject for other in subject if one < other]
    batches = numbers(make_batches(memories, [*chain, Similarity(8, 12, 0.7), *ties]))
    assert [*range(9)] in batches
    assert sorted(subject) in batches


def test_duplicates_share_a_batch_without_a_tie() -> None:
    memories = [stored(n, f"fact {n // 2}") for n in range(2 * MAX_MEMORIES)]
    for batch in make_batches(memories, []):
        texts = [memory.memory.content["content"] for memory in batch]
        assert {texts.count(text) for text in texts} == {2}


def test_a_memory_too_large_for_any_batch_is_left_out() -> None:
    memories = [stored(1, "x" * MAX_CHARACTERS), stored(2, "small"), stored(3, "tiny")]
    assert numbers(make_batches(memories, [Similarity(1, 2, 0.9)])) == [[2, 3]]


@given(
    st.lists(st.integers(1, 3_000), max_size=80),
    st.lists(st.tuples(st.integers(0, 79), st.integers(0, 79), st.floats(0, 1)), max_size=60),
)
def test_batches_fit_and_hold_every_memory_once(
    sizes: list[int], ties: list[tuple[int, int, float]]
) -> None:
    memories = [stored(n, f"{n} " + "x" * size) for n, size in enumerate(sizes)]
    found = make_batches(memories, [Similarity(*tie) for tie in ties])
    assert sorted(m.item_id for batch in found for m in batch) == list(range(len(sizes)))
    assert all(len(batch) <= MAX_MEMORIES for batch in found)
    assert all(sum(m.characters for m in batch) <= MAX_CHARACTERS for batch in found)


def test_the_oldest_keeps_its_key_and_gets_the_others_details() -> None:
    (part,) = merge_duplicates(
        [
            stored(2, "the user likes tea", importance=0.9),
            stored(1, "user likes tea"),
            stored(3, "The user likes tea.", valid_from=PartialDate(START)),
            stored(4, "User likes tea!"),
        ]
    )
    assert outcome(part) == {
        "k1": {"content": "The user likes tea."},
        "k2": None,
        "k3": None,
        "k4": None,
    }
    kept = part.edits[0]
    assert (kept.importance, kept.valid_from) == (0.9, PartialDate(START))
    assert [edit.reason for edit in part.edits] == [None, *["duplicate of k1"] * 3]


def test_a_merged_memory_has_the_times_and_the_lowest_class_of_all() -> None:
    later: dict[str, Any] = {
        "said_first": START,
        "said_last": START + timedelta(days=9),
        "source_class": "tool",
    }
    one = stored(1, "likes tea", said_first=START, said_last=START, source_class="user")
    (part,) = merge_duplicates([one, stored(2, "Likes tea.", **later)])
    [kept, _] = part.edits
    assert [memory.key for memory in kept.sources] == ["k2"]
    assert list(part.formal_edits) == list(part.edits)
    (part,) = merge_duplicates([replace(one, item_id=3), one])
    assert [edit.action for edit in part.edits] == ["delete"]


def test_exact_duplicates_are_formal_edits_and_near_ones_not() -> None:
    (exact,) = merge_duplicates([stored(1, "likes tea"), stored(2, "Likes tea.")])
    assert list(exact.formal_edits) == list(exact.edits)
    near = [stored(1, "has a dog"), stored(2, "has dog"), stored(3, "Has a dog")]
    (part,) = merge_duplicates(near)
    assert [edit.key for edit in part.edits if edit not in part.formal_edits] == ["k2"]
    near[2] = stored(3, "has the dog")  # nearness is not transitive
    assert [outcome(part) for part in merge_duplicates(near)] == [{"k2": None}]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "note"},
        {"kind": None, "format": MemoryFormat.CONTENT},
        {"valid_from": PartialDate(START, Precision.DAY)},
        {"valid_to": PartialDate(START)},
        {"ttl": timedelta(days=1)},
        {"protection": "is not a manager's"},
    ],
)
def test_memories_of_other_kinds_or_times_are_no_duplicates(other: dict[str, Any]) -> None:
    assert (
        merge_duplicates(
            [stored(1, "ran", valid_from=PartialDate(START)), stored(2, "ran", **other)]
        )
        == []
    )


@given(
    st.lists(st.sampled_from(["a dog", "the dog", "dog", "A dog.", "dogs", "a cat"]), max_size=9)
)
def test_merging_is_idempotent(texts: list[str]) -> None:
    memories = [stored(number, f"has {text}") for number, text in enumerate(texts)]
    state = {memory.memory.key: memory for memory in memories}
    for part in merge_duplicates(memories):
        for edit in part.edits:
            memory = state.pop(edit.key)
            if edit.content is not None:
                state[edit.key] = stored(memory.item_id, edit.content["content"])
    assert merge_duplicates(state.values()) == []
    assert {m.memory.content["content"].lower().strip(".") for m in state.values()} <= {
        f"has {text}".lower().strip(".") for text in texts
    }


BATCH = [stored(1, "Ana lives in Porto"), stored(2, "Ana lives in Lisbon"), stored(3, "Ana sings")]


async def test_the_model_sees_short_ids_and_dates_and_no_keys() -> None:
    model = ScriptedModel(NOTHING)
    part = await merge_batch(model, BATCH, task(turns=()), namespace=USERS)
    shown = model.requests[0].messages[0].text
    assert '<memory id="m1" kind="memory" changed="' in shown
    assert "2026-01-01 00:01 UTC" in shown
    assert "k1" not in shown
    assert part.edits == ()
    assert part.failure is None
    assert model.purposes == ["tidy"]


async def test_changes_come_back_as_edits_of_the_stored_memories() -> None:
    model = ScriptedModel(
        calls(update("m1", "Ana lives in Lisbon"), delete("m2", "is in m1"), insert("Ana rows"))
    )
    part = await merge_batch(model, BATCH, task(turns=()), namespace=USERS)
    assert [(e.action, e.key, e.namespace) for e in part.edits[:2]] == [
        ("update", "k1", "users\x1f"),
        ("delete", "k2", "users\x1f"),
    ]
    assert part.edits[2].content == {"content": "Ana rows"}
    assert part.edits[2].namespace == "users\x1f"


async def test_nothing_is_deleted_if_an_update_fails() -> None:
    wrong = "update_memory", {"id": "m1", "edits": [{"op": "remove", "path": "/content"}]}
    model = ScriptedModel(calls(wrong, delete("m2")), calls(wrong))
    part = await merge_batch(model, BATCH, task(turns=()), namespace=USERS)
    assert part.edits == ()
    assert part.failure is not None
    assert part.rejected


async def test_nothing_is_deleted_if_the_target_is_pinned() -> None:
    batch = [stored(1, "Ana likes tea", protection="is pinned"), stored(2, "Ana likes green tea")]
    model = ScriptedModel(calls(update("m1", "Ana likes green tea"), delete("m2")))
    part = await merge_batch(model, batch, task(turns=(), instructions="Be kind."), namespace=USERS)
    assert part.edits == ()
    assert part.failure == "the memory is pinned"
    assert "Be kind." in model.requests[0].system
    assert "leave them as they are: m1." in model.requests[0].system


async def test_a_model_that_calls_no_tool_has_failed() -> None:
    model = ScriptedModel(says("No", stop="refusal"))
    with pytest.raises(RefusalError, match="The model refused: No"):
        await merge_batch(model, BATCH, task(turns=()), namespace=USERS)
