"""Operations as they are sent, and their distribution over requests."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    NOT_PROVIDED,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph_memoryd import MemorydStore
from langgraph_memoryd.batches import MAX_BYTES, MAX_OPERATIONS, Batch, split
from langgraph_memoryd.operations import Defaults, Mode, Operation, encode

OPEN = Defaults(None, None)
PUT = {"op": "put", "namespace": ["a"], "key": "k", "value": {}}
SEARCH = {"op": "search", "namespace_prefix": ["a"], "limit": 10, "offset": 0}


def sent(op: Op, mode: Mode | None = None, index_fields: list[str] | None = None) -> Any:
    return json.loads(encode(op, Defaults(mode, index_fields)).body)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (
            GetOp(("a", "b.c"), "k", refresh_ttl=False),
            {"op": "get", "namespace": ["a", "b.c"], "key": "k", "refresh_ttl": False},
        ),
        (PutOp(("a",), "k", {}), {**PUT, "ttl": None}),
        (PutOp(("a",), "k", {}, ttl=0.5), {**PUT, "ttl": 0.5}),
        (PutOp(("a",), "k", {}, ttl=NOT_PROVIDED), PUT),  # type: ignore[arg-type]
        (PutOp(("a",), "k", None), {"op": "delete", "namespace": ["a"], "key": "k"}),
        (SearchOp(("a",), refresh_ttl=None), SEARCH),  # type: ignore[arg-type]
    ],
)
def test_only_given_arguments_are_sent(op: Op, expected: Any) -> None:
    assert sent(op) == expected


@pytest.mark.parametrize(
    ("index", "fields", "expected"),
    [
        (None, None, None),
        (None, ["text"], ["text"]),
        (["title"], ["text"], ["title"]),
        (False, ["text"], False),
    ],
)
def test_a_put_is_indexed_by_its_own_paths_or_the_stores(
    index: Any, fields: list[str] | None, expected: Any
) -> None:
    assert sent(PutOp(("a",), "k", {}, index), index_fields=fields).get("index") == expected


def test_a_search_has_the_mode_of_the_store() -> None:
    page = {"filter": {"n": 1}, "limit": 5, "offset": 6}
    query = {"query": "tea", "mode": "vector", "refresh_ttl": True}
    op = SearchOp(("a",), {"n": 1}, 5, 6, "tea", refresh_ttl=True)
    assert sent(op, mode="vector") == {**SEARCH, **page, **query}


def listing(*conditions: tuple[str, tuple[str, ...]]) -> Any:
    matched = tuple(MatchCondition(kind, path) for kind, path in conditions)  # type: ignore[arg-type]
    return sent(ListNamespacesOp(matched, limit=7))


def test_several_conditions_become_one_prefix_and_one_suffix() -> None:
    found = listing(
        ("prefix", ("a",)), ("prefix", ("*", "b")), ("suffix", ("y", "*")), ("suffix", ("z",))
    )
    assert (found["prefix"], found["suffix"], found["limit"]) == (["a", "b"], ["y", "z"], 7)


def test_conditions_that_exclude_each_other_find_nothing() -> None:
    assert listing(("prefix", ("a",)), ("prefix", ("b",)), ("prefix", ("b",)))["limit"] == 0


def test_a_condition_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'infix' is neither prefix nor suffix"):
        listing(("infix", ("a",)))


LABELS = st.lists(st.sampled_from("ab*"), max_size=3)
NAMESPACES = st.lists(st.sampled_from("ab"), max_size=5)


def begins_with(namespace: list[str], prefix: list[str]) -> bool:
    fits = all(one in {"*", label} for one, label in zip(prefix, namespace, strict=False))
    return len(namespace) >= len(prefix) and fits


@given(NAMESPACES, LABELS, LABELS, LABELS, LABELS)
def test_merged_conditions_match_where_all_of_them_match(
    namespace: list[str], one: list[str], other: list[str], end: list[str], another: list[str]
) -> None:
    prefixes, suffixes = [one, other], [end, another]
    found = listing(
        *(("prefix", tuple(path)) for path in prefixes),
        *(("suffix", tuple(path)) for path in suffixes),
    )
    expected = all(begins_with(namespace, path) for path in prefixes) and all(
        begins_with(namespace[::-1], path[::-1]) for path in suffixes
    )
    merged = begins_with(namespace, found.get("prefix", [])) and begins_with(
        namespace[::-1], found.get("suffix", [])[::-1]
    )
    assert (merged and found["limit"] > 0) == expected


@pytest.mark.parametrize("value", [{"n": float("nan")}, {"n": float("inf")}, {"text": "\ud800"}])
def test_values_that_json_cannot_hold_are_value_errors(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        encode(PutOp(("a",), "k", value), OPEN)


@pytest.mark.parametrize("value", [[("n", 1)], "text", 5])
def test_values_other_than_dicts_are_type_errors(value: Any) -> None:
    with pytest.raises(TypeError, match="a value must be a dict, not"):
        encode(PutOp(("a",), "k", value), OPEN)


def test_other_operations_and_namespaces_are_refused() -> None:
    with pytest.raises(TypeError, match="'get' is not an operation"):
        encode("get", OPEN)  # type: ignore[arg-type]
    with pytest.raises(InvalidNamespaceError, match="'users' is a string; use a tuple"):
        encode(GetOp("users", "k"), OPEN)  # type: ignore[arg-type]
    with pytest.raises(InvalidNamespaceError, match="'users' is a string"):
        MemorydStore().list_namespaces(prefix="users")  # type: ignore[arg-type]


@settings(max_examples=30)  # each takes megabytes
@given(st.lists(st.integers(1, 2 * MAX_BYTES // 3), max_size=8))
def test_parts_hold_every_operation_once_and_in_order(sizes: list[int]) -> None:
    # Views of the same memory, which have lengths as bytes do.
    operations = [Operation(bytes(size), writes=True) for size in sizes]
    cut = list(split(operations))
    assert [one for part in cut for one in part] == operations
    assert all(sum(len(one.body) for one in part) <= MAX_BYTES for part in cut)


def test_no_part_is_too_large() -> None:
    small = [Operation(b"{}", writes=False)] * (MAX_OPERATIONS + 1)
    large = [Operation(b"x" * (MAX_BYTES // 2), writes=True)] * 5
    assert [len(part) for part in split(small)] == [MAX_OPERATIONS, 1]
    assert [len(part) for part in split(large)] == [2, 2, 1]


def test_reads_go_before_writes_when_one_request_cannot_hold_all() -> None:
    ops = [PutOp(("a",), str(n), {}) for n in range(MAX_OPERATIONS)] + [GetOp(("a",), "k")]
    batch = Batch(ops, OPEN)
    assert [len(request) for request in batch.requests] == [MAX_OPERATIONS, 1]
    assert [one.writes for one in batch.requests[0][:2]] == [False, True]
    assert batch.results([{**ITEM}] + [None] * MAX_OPERATIONS)[-1] is not None


ITEM = {
    "namespace": ["a"],
    "key": "k",
    "value": {},
    "created_at": "2026-01-01T12:00:00+00:00",
    "updated_at": "2026-01-01T12:00:00Z",
}
