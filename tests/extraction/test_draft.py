from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.conversations.types import Edit, Memory
from app.extraction.tool_calls import Draft
from tests.support.scripted_model import delete_edit, insert_edit, memory, outlines, update_edit

BEFORE = [
    memory("m1", "a", importance=0.5),
    memory("m2", "b", valid_from=datetime(2026, 1, 1, tzinfo=UTC)),
]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "update", "delete"]),
        st.integers(0, 9),
        st.sampled_from("abc"),
        st.sampled_from([None, 0.5, 1.0]),
        st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
    ),
    max_size=12,
)


def told(memories: list[Memory]) -> dict[str, tuple[Any, ...]]:
    return {
        known.id: (known.kind, known.content, known.importance, known.valid_from)
        for known in memories
    }


def replayed(changes: tuple[Edit, ...]) -> dict[str, tuple[Any, ...]]:
    fresh = Draft(BEFORE)
    for change in changes:
        fresh.apply(change)
    return told(fresh.memories)


@given(ACTIONS)
def test_merged_changes_come_to_the_same_as_all_of_them(actions: list[tuple[Any, ...]]) -> None:
    draft = Draft(BEFORE)
    for action, number, text, importance, messages in actions:
        content = {"content": text}
        ids = [known.id for known in draft.memories]
        if action == "insert" or not ids:
            draft.apply(insert_edit(draft.new_id(), "memory", content, importance, None, messages))
        elif action == "update":
            draft.apply(
                update_edit(ids[number % len(ids)], "memory", content, importance, None, messages)
            )
        else:
            draft.apply(delete_edit(ids[number % len(ids)]))
    changes = draft.edits()
    assert replayed(changes) == told(draft.memories)
    ids = [change.memory_id for change in changes]
    assert len(ids) == len(set(ids))
    before = told(BEFORE)
    for change in changes:
        assert (change.action == "insert") == (change.memory_id not in before)
        if change.action == "update":
            assert told(draft.memories)[change.memory_id] != before[change.memory_id]


def test_an_insert_that_is_updated_is_one_insert() -> None:
    draft = Draft([])
    draft.apply(insert_edit("m1", "memory", {"content": "a"}, 0.5, None, ("x",)))
    draft.apply(update_edit("m1", "memory", {"content": "b"}, None, None, ("y", "x")))
    assert outlines(draft.edits()) == (
        insert_edit("m1", "memory", {"content": "b"}, 0.5, None, ("x", "y")),
    )


def test_an_insert_that_is_deleted_is_nothing() -> None:
    draft = Draft(BEFORE)
    draft.apply(insert_edit("m3", "memory", {"content": "a"}))
    draft.apply(delete_edit("m3"))
    assert outlines(draft.edits()) == ()
    assert draft.new_id() == "m3"


def test_an_update_that_is_deleted_is_a_delete() -> None:
    draft = Draft(BEFORE)
    draft.apply(update_edit("m1", "memory", {"content": "c"}))
    draft.apply(delete_edit("m1", "wrong"))
    assert outlines(draft.edits()) == (delete_edit("m1", "wrong"),)


def test_updates_that_end_where_they_began_are_nothing() -> None:
    draft = Draft(BEFORE)
    draft.apply(update_edit("m1", "memory", {"content": "c"}, 0.9))
    draft.apply(update_edit("m1", "memory", {"content": "a"}, 0.5))
    assert outlines(draft.edits()) == ()


def test_one_and_true_are_not_the_same_content() -> None:
    draft = Draft([replace(BEFORE[0], content={"n": 1})])
    draft.apply(update_edit("m1", "memory", {"n": True}))
    assert outlines(draft.edits()) == (update_edit("m1", "memory", {"n": True}, 0.5),)


def test_new_ids_continue_the_numbers_and_never_meet_others() -> None:
    draft = Draft([memory("m9", "a"), memory("m03", "b"), memory("other", "c")])
    assert [draft.new_id(), draft.new_id()] == ["m10", "m11"]
