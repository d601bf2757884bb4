"""Batches over HTTP."""

from typing import Any

import httpx2
import pytest

from tests.support.app import Store

A = ["a"]


def put(key: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"op": "put", "namespace": A, "key": key, "value": value, **more}


def get(key: str) -> dict[str, Any]:
    return {"op": "get", "namespace": A, "key": key}


def delete(key: str) -> dict[str, Any]:
    return {"op": "delete", "namespace": A, "key": key}


async def test_results_come_in_the_order_of_operations(store: Store) -> None:
    await store.put(A, "old", {"n": 1})
    results = await store.batch(
        put("new", {"n": 2}),
        get("old"),
        get("none"),
        {"op": "search", "namespace_prefix": A, "filter": {"n": 1}},
        {"op": "list_namespaces", "counts": True},
        delete("old"),
    )
    assert results[0] == {"op": "put"}
    assert results[1]["item"]["value"] == {"n": 1}
    assert results[2] == {"op": "get", "item": None}
    assert [item["key"] for item in results[3]["found"]["items"]] == ["old"]
    listed = {"namespaces": [A], "counts": [1]}
    assert results[4] == {"op": "list_namespaces", "listed": listed}
    assert results[5] == {"op": "delete"}
    assert await store.get(A, "old") is None
    assert (await store.get(A, "new"))["value"] == {"n": 2}


async def test_reads_see_the_state_before_the_batch(store: Store) -> None:
    await store.put(A, "k", {"n": 1})
    results = await store.batch(put("k", {"n": 2}), get("k"), put("other", {"n": 3}), get("other"))
    assert results[1]["item"]["value"] == {"n": 1}
    assert results[3]["item"] is None


async def test_the_last_write_of_a_key_wins(store: Store) -> None:
    await store.batch(put("k", {"n": 1}), delete("k"), put("k", {"n": 2}))
    await store.batch(put("gone", {"n": 1}), delete("gone"))
    assert (await store.get(A, "k"))["value"] == {"n": 2}
    assert (await store.get(A, "k"))["version"] == 1
    assert await store.get(A, "gone") is None


BAD: list[tuple[Any, str, str]] = [
    (put("k", {"a": "\x00"}), "value.a", "invalid_value"),
    (put("k", 1), "value", "invalid_request"),
    ({"op": "put", "key": "k", "value": {}}, "namespace", "invalid_request"),
    ({"op": "put", "namespace": [], "key": "k", "value": {}}, "namespace", "invalid_request"),
    ({"op": "increment"}, "op", "invalid_request"),
    ({"namespace": A}, "op", "invalid_request"),
    ("put", "op", "invalid_request"),
    ({"op": "search", "filter": {"a": {"$x": 1}}}, "filter.a.$x", "invalid_filter"),
    ({"op": "search", "limit": -1}, "limit", "invalid_request"),
    (put("k", {}, index=["["]), "index[0]", "invalid_index_path"),
]


async def test_one_bad_operation_keeps_an_atomic_batch_from_writing(store: Store) -> None:
    for operation, field, code in BAD:
        body = {"operations": [put("good", {"n": 1}), operation]}
        response = await store.call("POST", "/v1/store/batch", status=422, json=body)
        problem = response.json()
        assert problem["code"] == code
        assert problem["errors"][0]["field"] == f"operations[1].{field}"
    assert await store.get(A, "good") is None


async def test_without_atomic_only_bad_operations_fail(store: Store) -> None:
    bad = [operation for operation, _, _ in BAD]
    results = await store.batch(
        put("before", {"n": 1}), *bad, put("after", {"n": 2}), get("none"), atomic=False
    )
    assert results[0] == results[-2] == {"op": "put"}
    for (operation, field, code), result in zip(BAD, results[1:-2], strict=True):
        known = operation["op"] if isinstance(operation, dict) and field != "op" else None
        assert (result.keys(), result["op"]) == ({"op", "problem"}, known)
        problem = result["problem"]
        assert (problem["status"], problem["code"]) == (422, code)
        assert problem["errors"][0]["field"] == field
    for key, number in (("before", 1), ("after", 2)):
        assert (await store.get(A, key))["value"] == {"n": number}


@pytest.mark.slow
async def test_a_batch_has_up_to_a_thousand_operations(
    store: Store, client: httpx2.AsyncClient
) -> None:
    assert await store.batch() == []
    await store.batch(*(put(f"k{n}", {"n": n}) for n in range(1000)))
    assert (await store.get(A, "k999"))["value"] == {"n": 999}
    body = {"operations": [get("k")] * 1001}
    response = await client.post("/v1/store/batch", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "operations"


async def test_a_batch_may_write_below_the_reserved_label(store: Store) -> None:
    await store.batch({"op": "put", "namespace": ["langgraph", "x"], "key": "k", "value": {}})
    assert (await store.get(["langgraph", "x"], "k"))["value"] == {}
