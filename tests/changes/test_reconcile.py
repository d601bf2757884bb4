from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.changes.reconcile import Reconciliation, reconcile, review_reason
from app.conversations.memories import Edit, Memory, MemoryFormat, read_value, write_value
from app.namespaces import to_stored
from app.partial_dates import PartialDate, Precision
from tests.support.scripted_model import delete_edit, insert_edit, update_edit

MAY = PartialDate(datetime(2026, 5, 1, tzinfo=UTC), Precision.MONTH)
HERE = to_stored(["users", "ana"])

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
VALUES = st.dictionaries(st.sampled_from(["kind", "content", "text", "a"]), JSON)


def memory(memory_id: str, text: str, kind: str | None = "memory", **more: Any) -> Memory:
    fields = {"namespace": HERE, "key": f"k{memory_id}", "version": 3, **more}
    return Memory(memory_id, kind, {"content": text}, **fields)


def insert(memory_id: str, text: str, kind: str = "memory", **more: Any) -> Edit:
    return insert_edit(memory_id, kind, {"content": text}, **more)


def reconciled(
    *changes: Edit, existing: tuple[Memory, ...] = (), singletons: tuple[str, ...] = ()
) -> Reconciliation:
    return reconcile(changes, existing, namespace=HERE, singletons=singletons)


def only_edit(result: Reconciliation) -> Edit:
    (edit,) = result.edits.values()
    return edit


@pytest.mark.parametrize(
    ("there", "more"),
    [
        ({}, {"importance": 0.8, "valid_from": MAY}),
        ({"importance": 0.5}, {"importance": 0.8, "valid_from": MAY}),
        ({"importance": 0.8, "valid_from": MAY}, {"importance": 0.1}),
        ({"importance": 0.8, "valid_from": MAY}, {}),
    ],
)
def test_a_repeated_memory_gets_only_more_importance_and_a_time(
    there: dict[str, Any], more: dict[str, Any]
) -> None:
    known = memory("m1", "Ana likes tea.", **there)
    result = reconciled(insert("m2", "ana likes  tea", **more), existing=(known,))
    if "importance" not in more or there.get("importance") == 0.8:
        assert result == Reconciliation({}, 1)
    else:
        edit = only_edit(result)
        assert (edit.action, edit.key, edit.content) == ("update", "km1", known.content)
        assert (edit.importance, edit.valid_from) == (0.8, MAY)


def test_inserts_that_repeat_each_other_become_one() -> None:
    result = reconciled(
        insert("m1", "Ana likes tea.", importance=0.3, message_ids=("1",)),
        insert("m2", "Ana likes tea", importance=0.6, message_ids=("2",)),
    )
    edit = only_edit(result)
    assert (edit.importance, edit.message_ids, result.unchanged) == (0.6, ("1", "2"), 1)
    assert (edit.namespace, len(edit.key or "")) == (HERE, 32)
    there = memory("m1", "Ana likes tea.", kind="preference")  # another kind, another memory
    assert len(reconciled(insert("m2", "Ana likes tea."), existing=(there,)).edits) == 1


@pytest.mark.parametrize(
    "content",
    [{"content": "Ana likes tea."}, {"text": "Ana likes tea."}, {"data": "ana likes tea"}],
)
def test_a_value_of_another_shape_is_not_repeated(content: dict[str, Any]) -> None:
    there = replace(memory("m1", "", kind=None), content=content, format=MemoryFormat.VALUE)
    result = reconciled(insert("m2", "Ana likes tea."), existing=(there,))
    assert (dict(result.edits), result.unchanged) == ({}, 1)


def test_an_update_changes_only_what_it_gives() -> None:
    there = memory("m1", "Ana likes tea.", importance=0.5, valid_from=MAY)
    same = update_edit("m1", "memory", {"content": "Ana likes tea."}, 0.5, MAY)
    assert reconciled(same, existing=(there,)) == Reconciliation({}, 1)
    green = update_edit("m1", None, {"content": "Ana likes green tea."})
    edit = only_edit(reconciled(green, existing=(there,)))
    assert (edit.kind, edit.importance, edit.valid_from) == ("memory", 0.5, MAY)
    there = replace(there, content={"smokes": 1})
    edit = only_edit(reconciled(update_edit("m1", "memory", {"smokes": True}), existing=(there,)))
    assert edit.content == {"smokes": True}  # which is not 1


def test_a_memory_deleted_and_inserted_again_is_kept() -> None:
    there = memory("m1", "Ana has the dog.", importance=0.5)
    result = reconciled(delete_edit("m1"), insert("m2", "Ana has the dog."), existing=(there,))
    assert result == Reconciliation({}, 1)
    edit = only_edit(reconciled(delete_edit("m1"), insert("m2", "Ana has dog."), existing=(there,)))
    assert (edit.action, edit.content) == ("update", {"content": "Ana has dog."})


def test_inserts_are_compared_with_updated_memories() -> None:
    there = memory("m1", "Ana likes tea.")
    result = reconciled(
        update_edit("m1", "memory", {"content": "Ana likes coffee."}),
        insert("m2", "Ana likes coffee."),
        insert("m3", "Ana likes tea."),
        existing=(there,),
    )
    assert [(id_, edit.action) for id_, edit in result.edits.items()] == [
        ("m1", "update"),
        ("m3", "insert"),
    ]


def test_documents_of_a_singleton_kind_become_one() -> None:
    first = insert_edit("m1", "profile", {"name": "Ana", "age": 30})
    second = insert_edit("m2", "profile", {"age": 31, "city": "Lisbon"})
    both = {"name": "Ana", "age": 31, "city": "Lisbon"}
    new = only_edit(reconciled(first, second, singletons=("profile",)))
    assert (new.action, new.key, new.content) == ("insert", "profile", both)
    there = replace(memory("m1", "", kind="profile"), content=first.content or {})
    edit = only_edit(reconciled(second, existing=(there,), singletons=("profile",)))
    assert (edit.action, edit.key, edit.content) == ("update", "km1", both)


def test_a_default_is_inserted_once_unless_it_was_deleted() -> None:
    default = memory("m1", "Nothing is known.", key="default", version=None)
    tea = {"content": "Ana likes tea."}
    for edits, content in ([], default.content), ([update_edit("m1", None, tea)], tea):
        edit = only_edit(reconciled(*edits, existing=(default,)))
        assert (edit.action, edit.key, edit.kind) == ("insert", "default", "memory")
        assert edit.content == content
    assert not reconciled(delete_edit("m1"), existing=(default,)).edits


@given(VALUES)
def test_every_value_is_read_and_written_back_as_it_was(value: dict[str, Any]) -> None:
    shape, kind, content = read_value(value)
    assert write_value(shape, kind, content) == value


@pytest.mark.parametrize(
    ("value", "shape", "kind", "content"),
    [
        ({"kind": "memory", "content": {"content": "a"}}, "memory", "memory", {"content": "a"}),
        ({"content": {"a": 1}}, "content", None, {"a": 1}),
        ({"content": "a"}, "value", None, {"content": "a"}),
        ({"kind": 1, "content": {}}, "value", None, {"kind": 1, "content": {}}),
        ({"content": {}, "tags": []}, "value", None, {"content": {}, "tags": []}),
        ({}, "value", None, {}),
    ],
)
def test_values_are_read_by_their_shape(
    value: dict[str, Any], shape: str, kind: str | None, content: dict[str, Any]
) -> None:
    assert read_value(value) == (shape, kind, content)


TEXTS = st.sampled_from(["tea", "Tea.", "coffee", "the dog", "dog", "ramen"])
EXISTING = st.lists(TEXTS, max_size=4).map(
    lambda texts: tuple(memory(f"m{n}", text) for n, text in enumerate(texts))
)


@given(EXISTING, st.lists(TEXTS, max_size=5), st.data())
def test_proposing_the_outcome_again_changes_nothing(
    existing: tuple[Memory, ...], texts: list[str], data: st.DataObject
) -> None:
    changes: list[Edit] = [insert(f"n{n}", text) for n, text in enumerate(texts)]
    for there in existing:
        if data.draw(st.booleans()):
            changes.append(update_edit(there.id, "memory", {"content": data.draw(TEXTS)}))
        elif data.draw(st.booleans()):
            changes.append(delete_edit(there.id))
    first = reconcile(changes, existing, namespace=HERE)
    after = [memory_after(first, there) for there in existing]
    known = [kept for kept in after if kept is not None]
    known += [
        Memory(id_, edit.kind, edit.content or {}, namespace=HERE, key=edit.key, version=1)
        for id_, edit in first.inserts.items()
    ]
    again = [insert(f"x{n}", text) for n, text in enumerate(texts)]
    assert not reconcile(again, known, namespace=HERE).edits


def memory_after(result: Reconciliation, there: Memory) -> Memory | None:
    edit = result.edits.get(there.id)
    if edit is None:
        return there
    return None if edit.content is None else replace(there, content=edit.content)


def rewritten(*numbers: int) -> list[Edit]:
    return [
        replace(update_edit(f"m{n}", "memory", {"content": "new"}), before=memory(f"m{n}", "old"))
        for n in numbers
    ]


def shown(count: int) -> list[Memory]:
    return [memory(f"m{n}", "old") for n in range(count)]


@pytest.mark.parametrize(
    ("changed", "compared", "share", "opens"),
    [
        (2, 2, 0.5, False),  # two are always harmless
        (3, 6, 0.5, False),
        (4, 6, 0.5, True),
        (3, 3, 0.5, True),
        (3, 3, 1.0, False),
        (3, 100, 0.0, True),
        (2, 100, 0.0, False),
        (0, 0, 0.0, False),
    ],
)
def test_the_breaker_opens_above_the_share(
    changed: int, compared: int, share: float, opens: bool
) -> None:
    reason = review_reason(rewritten(*range(changed)), shown(compared), max_share=share)
    assert (reason is not None) == opens
    assert reason is None or reason.startswith(f"{changed} of the {compared} memories")


def test_inserts_and_new_importance_do_not_open_the_breaker() -> None:
    inserts = [insert(f"n{n}", str(n)) for n in range(9)]
    details = [
        replace(edit, content={"content": "old"}, importance=1) for edit in rewritten(0, 1, 2)
    ]
    assert review_reason([*inserts, *details], shown(3), max_share=0) is None


@pytest.mark.parametrize(
    ("after", "opens"),
    [
        ({"name": "Anna", "city": "Lisbon", "job": {"title": "cook", "since": 1}}, False),
        ({"name": "Ana", "city": "Porto"}, False),
        ({"name": "Ana"}, True),
        ({"name": "", "city": None, "job": {"title": "baker", "since": []}}, True),
        ({}, True),
    ],
)
def test_a_document_counts_by_the_fields_it_would_lose(after: dict[str, Any], opens: bool) -> None:
    before = {"name": "Ana", "city": "Porto", "job": {"title": "baker", "since": 2020}}
    there = replace(memory("m1", "", kind="profile"), content=before)
    edit = replace(update_edit("m1", "profile", after), before=there)
    reason = review_reason([edit], [], singletons={"profile"}, max_share=0.5)
    assert (reason is not None) == opens
