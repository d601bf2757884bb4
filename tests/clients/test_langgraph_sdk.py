"""The unmodified LangGraph SDK for Python, its asynchronous and its synchronous client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import pytest
from langgraph_sdk import get_client, get_sync_client

from tests.support.server import Server

pytestmark = pytest.mark.slow

NO_SUCH_ITEM = None


class Awaitable:
    """A synchronous client with an asynchronous interface, so that one test covers both."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return method(*arguments, **options)

        return call


@pytest.fixture(params=["async", "sync"])
async def store(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    if request.param == "async":
        async with get_client(url=f"{server.url}/v1", api_key=None) as client:
            yield client.store
    else:
        with get_sync_client(url=f"{server.url}/v1/", api_key=None) as sync_client:
            yield Awaitable(sync_client.store)


def keys(found: dict[str, Any]) -> list[str]:
    return [item["key"] for item in found["items"]]


async def test_an_item_is_put_read_replaced_and_deleted(store: Any, root: str) -> None:
    value = {"text": "Grüße 🌱", "tags": ["a", None, 1.5], "nested": {"deep": [True]}}
    assert await store.put_item([root, "alice"], key="a/b c?", value=value) is None
    first = await store.get_item([root, "alice"], key="a/b c?")
    assert (first["namespace"], first["key"]) == ([root, "alice"], "a/b c?")
    assert first["value"] == value
    assert datetime.fromisoformat(first["created_at"]).tzinfo is not None
    assert first["created_at"] == first["updated_at"]
    await store.put_item([root, "alice"], key="a/b c?", value={"a": 2})
    second = await store.get_item([root, "alice"], key="a/b c?")
    assert second["value"] == {"a": 2}
    assert second["created_at"] == first["created_at"] < second["updated_at"]
    for _ in range(2):  # deleting a missing item is not an error
        assert await store.delete_item([root, "alice"], key="a/b c?") is None
    assert await store.get_item([root, "alice"], key="a/b c?") is NO_SUCH_ITEM
    assert keys(await store.search_items([root])) == []


async def test_a_key_may_be_empty_and_labels_may_hold_metacharacters(store: Any, root: str) -> None:
    odd = [root, "100%_*\\", "+/?&="]
    await store.put_item(odd, key="", value={"a": 1})
    assert (await store.get_item(odd, key=""))["namespace"] == odd
    assert keys(await store.search_items([root, "100%"])) == []


async def test_an_item_without_an_index_is_found_without_a_score(store: Any, root: str) -> None:
    await store.put_item([root], key="hidden", value={"text": "green tea"}, index=False)
    await store.put_item([root], key="shown", value={"text": "green tea"})
    found = await store.search_items([root], query="green tea")
    assert keys(found) == ["shown", "hidden"]
    assert found["items"][0]["score"] > 0
    assert found["items"][1]["score"] is None


async def test_an_item_expires_after_a_fraction_of_a_minute(store: Any, root: str) -> None:
    await store.put_item([root], key="brief", value={"a": 1}, ttl=0.01)
    await store.put_item([root], key="lasting", value={"a": 1}, ttl=1.5)
    brief = await store.get_item([root], key="brief", refresh_ttl=False)
    assert 0 < seconds_to_live(brief) <= 0.6
    await asyncio.sleep(0.7)
    assert await store.get_item([root], key="brief") is NO_SUCH_ITEM
    assert keys(await store.search_items([root])) == ["lasting"]


async def test_query_parameters_show_expired_items(store: Any, root: str) -> None:
    await store.put_item([root], key="brief", value={"a": 1}, ttl=0.001)
    await asyncio.sleep(0.1)
    shown = {"omit_expired": "false"}
    still_there = await store.get_item([root], key="brief", refresh_ttl=False, params=shown)
    assert still_there["value"] == {"a": 1}
    assert keys(await store.search_items([root], refresh_ttl=False, params=shown)) == ["brief"]
    assert keys(await store.search_items([root])) == []


async def test_reads_and_searches_restart_lifetimes_on_request(store: Any, root: str) -> None:
    async def expiry() -> str:
        item = await store.get_item([root], key="k", refresh_ttl=False)
        return str(item["expires_at"])

    await store.put_item([root], key="k", value={"a": 1}, ttl=1)
    first = await expiry()
    await store.search_items([root], refresh_ttl=False)
    assert await expiry() == first
    await store.get_item([root], key="k", refresh_ttl=True)
    second = await expiry()
    await store.search_items([root], refresh_ttl=True)
    assert first < second < await expiry()


async def test_without_a_query_the_last_updated_come_first(store: Any, root: str) -> None:
    for key in ("a", "b", "c"):
        await store.put_item([root, key], key=key, value={"n": 1})
    await store.put_item([root, "a"], key="a", value={"n": 2})
    found = await store.search_items([root])
    assert keys(found) == ["a", "c", "b"]
    assert [item["score"] for item in found["items"]] == [None, None, None]
    assert keys(await store.search_items([root, "b"])) == ["b"]


async def test_filters(store: Any, root: str) -> None:
    for price, kind, hot in ((2, "tea", 0), (9, "coffee", 1), (10, "tea", 0), (100, "coffee", 1)):
        value = {"price": price, "kind": kind, "meta": {"hot": bool(hot), "sweet": False}}
        await store.put_item([root], key=str(price), value=value, index=False)
    for condition, expected in (
        ({"price": {"$ne": 9}}, ["2", "10", "100"]),
        ({"price": {"$lte": 10, "$gt": 2}}, ["9", "10"]),
        ({"kind": "coffee", "price": {"$gte": 50}}, ["100"]),
        ({"meta": {"hot": True}}, ["9", "100"]),
    ):
        found = await store.search_items([root], filter=condition)
        assert sorted(keys(found), key=int) == expected


async def test_a_query_orders_by_score(store: Any, root: str) -> None:
    for key, text in (("near", "green tea"), ("nearer", "green tea leaves"), ("far", "old ships")):
        await store.put_item([root], key=key, value={"text": text}, index=["text"])
    found = await store.search_items([root], query="green tea leaves")
    assert keys(found) == ["nearer", "near", "far"]
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True)
    assert 0.7 < scores[0] < 0.8


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(store: Any, root: str) -> None:
    for labels in (["a", "x", "p"], ["a", "x", "q"], ["a", "y", "p"], ["b", "x", "p"]):
        await store.put_item([root, *labels], key="k", value={}, index=False)

    async def listed(*prefix: str, **more: Any) -> list[str]:
        found = await store.list_namespaces(prefix=[root, *prefix], **more)
        return ["".join(labels[1:]) for labels in found["namespaces"]]

    assert await listed() == ["axp", "axq", "ayp", "bxp"]
    assert await listed("a") == ["axp", "axq", "ayp"]
    assert await listed("a", suffix=["p"]) == ["axp", "ayp"]
    assert await listed("*", "x") == ["axp", "axq", "bxp"]
    assert await listed(suffix=["x", "*"]) == ["axp", "axq", "bxp"]
    assert await listed(max_depth=2) == ["a", "b"]
    assert await listed("a", max_depth=3) == ["ax", "ay"]
    assert await listed(limit=2, offset=1) == ["axq", "ayp"]


def seconds_to_live(item: dict[str, Any]) -> float:
    expires_at = datetime.fromisoformat(item["expires_at"])
    return (expires_at - datetime.now(expires_at.tzinfo)).total_seconds()
