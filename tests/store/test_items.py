"""Putting, getting, patching and deleting items over HTTP."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import FrozenClock
from app.store.writer import merge_patch
from tests.support.app import Store

ALICE = ["users", "alice"]


async def test_a_put_item_is_read_back(store: Store, clock: FrozenClock) -> None:
    await store.put(ALICE, "food", {"text": "likes ramen", "n": 1.5, "deep": [{"a": None}]})
    item = await store.get(ALICE, "food")
    assert item == {
        "namespace": ALICE,
        "key": "food",
        "value": {"text": "likes ramen", "n": 1.5, "deep": [{"a": None}]},
        "version": 1,
        "importance": None,
        "pinned": False,
        "valid_from": None,
        "valid_to": None,
        "said_first": None,
        "said_last": None,
        "source_class": None,
        "source": None,
        "expires_at": None,
        "created_at": "2026-01-01T12:00:00+00:00",
        "updated_at": "2026-01-01T12:00:00+00:00",
    }


async def test_a_namespace_that_cannot_hold_items_is_no_miss(store: Store) -> None:
    for route in ("/v1/store/items", "/v1/store/items/versions"):
        for namespace in ({}, {"namespace": ""}, {"namespace": '["a"'}, {"namespace": "a..b"}):
            params = {"key": "k", **namespace}
            response = await store.call("GET", route, status=422, params=params)
            assert [error["field"] for error in response.json()["errors"]] == ["namespace"]


async def test_metadata_is_kept_and_replaced_by_the_next_put(store: Store) -> None:
    source = {"thread_id": "t1", "position": 3, "speaker": "Alice"}
    span: dict[str, Any] = {
        "valid_from": "2026-01-01T00:00:00",
        "valid_to": "2026-02-01T00:00:00+01:00",
        "said_first": "2025-12-31",
        "said_last": "2026-01-02T00:00:00Z",
        "source_class": "tool",
    }
    await store.put(ALICE, "food", {"text": "ramen"}, importance=0.8, source=source, **span)
    item = await store.get(ALICE, "food")
    assert (item["importance"], item["source"], item["source_class"]) == (0.8, source, "tool")
    assert item["said_first"] == "2025-12-31T00:00:00+00:00"
    assert item["said_last"] == "2026-01-02T00:00:00+00:00"
    assert item["valid_from"] == "2026-01-01T00:00:00+00:00"
    assert item["valid_to"] == "2026-01-31T23:00:00+00:00"
    await store.put(ALICE, "food", {"text": "ramen"})
    item = await store.get(ALICE, "food")
    assert (item["importance"], item["source"], item["valid_to"]) == (None, None, None)


async def test_a_deleted_item_is_null_and_can_be_deleted_again(store: Store) -> None:
    await store.put(ALICE, "food", {"text": "ramen"})
    for _ in range(2):
        await store.delete(ALICE, "food")
        assert await store.get(ALICE, "food") is None


async def test_an_update_keeps_created_at_and_raises_the_version(
    store: Store, clock: FrozenClock
) -> None:
    first = await store.put(ALICE, "food", {"text": "ramen"})
    clock.advance(timedelta(hours=1))
    second = await store.put(ALICE, "food", {"text": "pizza"})
    item = await store.get(ALICE, "food")
    assert (first.headers["etag"], second.headers["etag"]) == ('"1"', '"2"')
    assert item["created_at"] == "2026-01-01T12:00:00+00:00"
    assert item["updated_at"] == "2026-01-01T13:00:00+00:00"
    assert item["value"] == {"text": "pizza"}


async def test_labels_with_dots_are_reached_by_a_json_array(
    store: Store, client: httpx2.AsyncClient
) -> None:
    await store.put(["users", "a@b.c"], "k", {"n": 1})
    response = await client.get(
        "/v1/store/items", params={"namespace": '["users","a@b.c"]', "key": "k"}
    )
    assert response.json()["namespace"] == ["users", "a@b.c"]


async def test_unusual_labels_are_literal(store: Store) -> None:
    labels = ["*", "%", "_", "\\", "+", "new\nline", "end\n", "日本", "[x", " "]
    for label in labels:
        await store.put(["w", label], "k", {"label": label})
    for label in labels:
        assert (await store.get(["w", label], "k"))["value"] == {"label": label}
        found = await store.search(["w", label])
        assert [item["value"] for item in found] == [{"label": label}]


async def test_extreme_addresses_are_stored(store: Store) -> None:
    for namespace, key in ((ALICE, ""), (["n" * 120] * 16, "k" * 512)):
        await store.put(namespace, key, {"n": 1})
        assert (await store.get(namespace, key))["key"] == key


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


EXTREME: list[dict[str, Any]] = [
    {"most": 10**1000 - 1, "least": -(10**1000) + 1, "a": deep(63)},
    {"text": "x" * ((1 << 20) - 20)},
    {"big": 2**70, "small": 1e-300, "one": 1.0, "negative": -0.5},
]


async def test_extreme_values_are_stored_exactly(store: Store) -> None:
    for value in EXTREME:
        await store.put(ALICE, "extreme", value, index=False)
        assert (await store.get(ALICE, "extreme"))["value"] == value


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"namespace": []}, "namespace"),
    ({"namespace": ["a", ""]}, "namespace"),
    ({"namespace": ["a" * 129]}, "namespace"),
    ({"namespace": ["a"] * 17}, "namespace"),
    ({"namespace": ["a\x00"]}, "namespace"),
    ({"namespace": ["a\x1f"]}, "namespace"),
    ({"namespace": "a.b"}, "namespace"),
    ({"namespace": [1]}, "namespace[0]"),
    ({"namespace": ["langgraph", "x"]}, "namespace[0]"),
    ({"namespace": ["日" * 128] * 16, "key": "k"}, "namespace"),
    ({"key": "k" * 513}, "key"),
    ({"key": "a\x00"}, "key"),
    ({"key": None}, "key"),
    ({"value": None}, "value"),
    ({"value": [1]}, "value"),
    ({"value": {"a": "x\x00y"}}, "value.a"),
    ({"value": {"a": [{"b\x00": 1}]}}, "value.a[0]"),
    ({"value": {"n": 10**1000}}, "value.n"),
    ({"value": deep(65)}, "value" + ".a" * 64),
    ({"value": {"text": "x" * (1 << 20)}}, "value"),
    ({"importance": 1.5}, "importance"),
    ({"importance": "high"}, "importance"),
    ({"valid_from": "yesterday"}, "valid_from"),
    ({"ttl": 0}, "ttl"),
    ({"ttl": 1e300}, "ttl"),
    ({"index": True}, "index"),
    ({"ttl": "soon"}, "ttl"),
    ({"ttl_seconds": 0}, "ttl_seconds"),
    ({"index": ["a[", "b"]}, "index[0]"),
    ({"index": ["a"] * 33}, "index"),
    ({"index": ["a" * 513]}, "index[0]"),
    ({"index": ["a"], "ttl": 1, "ttl_seconds": 1}, "body"),
    ({"source": {"thread_id": "a\x00"}}, "source.thread_id"),
    ({"source": {"who": "a\x00"}}, "source.who"),
    ({"valid_from": "2026-02-01", "valid_to": "2026-01-01"}, "body"),
    ({"valid_from": "2027-01", "valid_to": "2026"}, "body"),
    ({"valid_to": "2026-02-30"}, "valid_to"),
    ({"valid_to": "202"}, "valid_to"),
    ({"said_first": "2026-02-01", "said_last": "2026-01-01"}, "body"),
    ({"said_last": "2026"}, "said_last"),
    ({"source_class": "rumor"}, "source_class"),
    ({"colour": "red"}, "colour"),
]


async def test_bad_input_is_refused_naming_the_field(client: httpx2.AsyncClient) -> None:
    for change, field in HOSTILE:
        body = {"namespace": ["a"], "key": "k", "value": {"n": 1}, **change}
        response = await client.put("/v1/store/items", json=body)
        assert response.status_code == 422, (change, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["errors"][0]["field"] == field, change


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", '"\\ud800"'])
async def test_what_json_or_postgresql_cannot_hold_is_refused(
    client: httpx2.AsyncClient, value: str
) -> None:
    for raw in (
        f'{{"namespace": ["a"], "key": "k", "value": {{"n": {value}}}}}',
        f'{{"namespace": ["a"], "key": {value}, "value": {{}}}}',
        f'{{"namespace": [{value}], "key": "k", "value": {{}}}}',
    ):
        response = await client.put(
            "/v1/store/items", content=raw, headers={"content-type": "application/json"}
        )
        assert response.status_code == 422, response.text


async def test_a_patch_merges_and_answers_with_the_item(store: Store, clock: FrozenClock) -> None:
    await store.put(ALICE, "k", {"a": 1, "b": {"c": 2, "d": 3}}, importance=0.5)
    clock.advance(timedelta(seconds=5))
    body = {
        "namespace": ALICE,
        "key": "k",
        "value": {"b": {"c": None, "e": 4}},
        "source": {"position": 1},
    }
    response = await store.call("PATCH", "/v1/store/items", status=200, json=body)
    assert response.json() == await store.get(ALICE, "k")
    assert response.json()["value"] == {"a": 1, "b": {"d": 3, "e": 4}}
    assert response.json()["importance"] == 0.5
    assert response.json()["source"] == {"position": 1}
    assert response.json()["updated_at"] == "2026-01-01T12:00:05+00:00"
    assert response.headers["etag"] == '"2"'
    absent = {**body, "key": "none"}
    response = await store.call("PATCH", "/v1/store/items", status=404, json=absent)
    assert response.json()["code"] == "item_not_found"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)

json_objects = st.dictionaries(st.text(max_size=3), json_values, max_size=3)


@given(before=json_objects, patch=json_objects)
def test_merging_follows_rfc_7386(before: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = merge_patch(before, patch)
    assert merged.keys() <= before.keys() | patch.keys()
    for name in before.keys() | patch.keys():
        if name not in patch:
            assert merged[name] == before[name]
        elif patch[name] is None:
            assert name not in merged
        elif isinstance(patch[name], dict):
            inner = before.get(name)
            target = inner if isinstance(inner, dict) else {}
            assert merged[name] == merge_patch(target, patch[name])
        else:
            assert merged[name] == patch[name]


async def test_a_pin_is_set_kept_and_taken_off(store: Store) -> None:
    await store.put(ALICE, "k", {"n": 1}, pinned=True)
    for change, pinned in (({"value": {"n": 2}}, True), ({"pinned": None}, False)):
        body = {"namespace": ALICE, "key": "k", **change}
        response = await store.call("PATCH", "/v1/store/items", status=200, json=body)
        assert response.json()["pinned"] is pinned
