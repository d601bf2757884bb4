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


def sent(op: Op, mode: Mode | None = None, index_fields: list[str] | None = None) -> Any:
    return json.loads(encode(op, Defaults(mode, index_fields)).body)


def test_a_get_names_its_item() -> None:
    assert sent(GetOp(("a", "b.c"), "k", refresh_ttl=False)) == {
        "op": "get",
        "namespace": ["a", "b.c"],
        "key": "k",
        "refresh_ttl": False,
    }


def test_what_an_operation_leaves_open_is_not_sent() -> None:
    search = SearchOp(("a",), refresh_ttl=None)  # type: ignore[arg-type]
    put = PutOp(("a",), "k", {}, ttl=NOT_PROVIDED)  # type: ignore[arg-type]
    assert sent(search) == {
        "op": "search",
        "namespace_prefix": ["a"],
        "limit": 10,
        "offset": 0,
    }
    assert sent(put) == {"op": "put", "namespace": ["a"], "key": "k", "value": {}}


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


def test_a_put_without_a_value_is_a_deletion() -> None:
    assert sent(PutOp(("a",), "k", None)) == {"op": "delete", "namespace": ["a"], "key": "k"}


def test_no_lifetime_is_for_ever() -> None:
    assert sent(PutOp(("a",), "k", {}))["ttl"] is None
    assert sent(PutOp(("a",), "k", {}, ttl=0.5))["ttl"] == 0.5


def test_a_search_is_made_in_the_stores_mode() -> None:
    op = SearchOp(("a",), {"n": 1}, 5, 6, "tea", refresh_ttl=True)
    assert sent(op, mode="vector") == {
        "op": "search",
        "namespace_prefix": ["a"],
        "filter": {"n": 1},
        "limit": 5,
        "offset": 6,
        "query": "tea",
        "mode": "vector",
        "refresh_ttl": True,
    }


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
def test_merged_conditions_match_what_all_of_them_match(
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
def test_what_json_cannot_carry_is_a_value_error(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        encode(PutOp(("a",), "k", value), OPEN)


def test_a_namespace_that_is_a_string_is_refused() -> None:
    with pytest.raises(InvalidNamespaceError, match="'users' is a string; use a tuple"):
        encode(GetOp("users", "k"), OPEN)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[("n", 1)], "text", 5])
def test_a_value_that_is_no_dict_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a value must be a dict, not"):
        encode(PutOp(("a",), "k", value), OPEN)


def test_what_is_no_operation_is_refused() -> None:
    with pytest.raises(TypeError, match="'get' is not an operation"):
        encode("get", OPEN)  # type: ignore[arg-type]


def test_a_prefix_that_is_a_string_is_refused() -> None:
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
