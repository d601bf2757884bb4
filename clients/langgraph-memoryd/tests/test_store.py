"""The store on a real server, beyond what LangGraph's own tests try."""

import asyncio
import gc
import threading
from datetime import datetime
from typing import Any

import httpx2
import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    Result,
    SearchOp,
)
from langgraph_memoryd import InvalidInputError, MemorydError, MemorydStore

from tests.support.server import Server

pytestmark = pytest.mark.slow


async def test_blocking_and_asynchronous_calls_share_a_store(
    store: MemorydStore, root: str
) -> None:
    store.put((root, "a"), "k", {"text": "Grüße 🌱", "list": [1, None]})
    item = await store.aget((root, "a"), "k")
    assert item
    assert (item.namespace, item.key) == ((root, "a"), "k")
    assert item.value == {"text": "Grüße 🌱", "list": [1, None]}
    assert item.created_at == item.updated_at
    assert item.created_at.tzinfo is not None
    await store.adelete((root, "a"), "k")
    assert store.get((root, "a"), "k") is None


async def test_labels_may_hold_dots(store: MemorydStore, root: str) -> None:
    namespace = (root, "ann@example.com")
    await store.aput(namespace, "k", {"text": "green tea"})
    await store.aput((root, "ann@example", "com"), "k", {})
    assert store.get(namespace, "k") == await store.aget(namespace, "k") != None  # noqa: E711
    assert [item.namespace for item in await store.asearch(namespace)] == [namespace]
    assert store.list_namespaces(prefix=namespace) == [namespace]
    assert await store.alist_namespaces(suffix=("ann@example.com",), prefix=(root,)) == [namespace]


async def test_found_items_have_scores(server: Server, root: str) -> None:
    async with MemorydStore(server.url, mode="vector", index_fields=["title"]) as store:
        await store.aput((root,), "tea", {"title": "green tea", "price": 3})
        await store.aput((root,), "coffee", {"title": "black coffee", "price": 9})
        await store.aput((root,), "none", {"title": "green tea", "price": 1}, index=False)
        found = await store.asearch((root,), query="green tea", filter={"price": {"$lt": 5}})
        listed = await store.asearch((root,), limit=1, offset=1)
    assert [(item.key, item.score) for item in found] == [("tea", pytest.approx(1)), ("none", None)]
    assert [(item.key, item.score) for item in listed] == [("coffee", None)]


async def test_a_search_is_hybrid_by_default(
    store: MemorydStore, server: Server, root: str
) -> None:
    await store.aput((root,), "k", {"text": "kombucha"})
    (hybrid,) = await store.asearch((root,), query="kombucha tea")
    async with MemorydStore(server.url, mode="vector") as by_vectors:
        (vector,) = await by_vectors.asearch((root,), query="kombucha tea")
    assert hybrid.score != vector.score


def lifetime(server: Server, root: str, key: str) -> tuple[float | None, str | None]:
    """Return an item's lifetime in minutes, and its end."""
    asked = {"namespace": root, "key": key, "refresh_ttl": "false"}
    item = httpx2.get(f"{server.url}/v1/store/items", params=asked).json()
    if item["expires_at"] is None:
        return None, None
    first, last = (datetime.fromisoformat(item[name]) for name in ("updated_at", "expires_at"))
    return (last - first).total_seconds() / 60, item["expires_at"]


async def test_a_lifetime_is_the_callers_the_stores_or_none(server: Server, root: str) -> None:
    async with MemorydStore(server.url, ttl={"default_ttl": 0.5}) as store:
        await store.aput((root,), "stores", {})
        await store.aput((root,), "own", {}, ttl=10)
        await store.aput((root,), "forever", {}, ttl=None)
    assert lifetime(server, root, "stores")[0] == pytest.approx(0.5)
    assert lifetime(server, root, "own")[0] == pytest.approx(10)
    assert lifetime(server, root, "forever") == (None, None)


@pytest.mark.parametrize("default", [None, True, False])
async def test_the_caller_or_the_store_decides_about_lifetimes(
    server: Server, root: str, default: bool | None
) -> None:
    ttl: Any = None if default is None else {"refresh_on_read": default}
    async with MemorydStore(server.url, ttl=ttl) as store:
        for refresh in (None, True, False):
            await store.aput((root,), "k", {}, ttl=10)
            before = lifetime(server, root, "k")
            await store.aget((root,), "k", refresh_ttl=refresh)
            between = lifetime(server, root, "k")
            await store.asearch((root,), refresh_ttl=refresh)
            after = lifetime(server, root, "k")
            restarts = refresh if refresh is not None else default is not False
            assert (before < between < after) if restarts else (before == between == after)


def test_a_batch_reads_the_state_before_it(store: MemorydStore, root: str) -> None:
    store.put((root, "a"), "k", {"n": 1})
    results = store.batch(
        [
            PutOp((root, "a"), "k", {"n": 2}),
            GetOp((root, "a"), "k"),
            SearchOp((root,), filter={"n": {"$gte": 1}}),
            ListNamespacesOp((MatchCondition("prefix", (root,)), MatchCondition("suffix", ("*",)))),
            PutOp((root, "b"), "k", {}),
            PutOp((root, "b"), "k", None),
        ]
    )
    put, got, found, listed, *_ = results
    assert put is None
    assert got.value == found[0].value == {"n": 1}  # type: ignore[index, union-attr]
    assert listed == [(root, "a")]
    assert store.list_namespaces(prefix=(root,)) == [(root, "a")]


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_batch_is_all_or_nothing(store: MemorydStore, root: str, blocking: bool) -> None:
    ops = [PutOp((root,), "k", {}), PutOp((root,), "bad", {"text": "\x00"})]
    with pytest.raises(InvalidInputError, match=r"operations\[1\].*U\+0000"):
        store.batch(ops) if blocking else await store.abatch(ops)
    assert await store.asearch((root,)) == []


async def test_thousands_of_operations_at_once(store: MemorydStore, root: str) -> None:
    keys = [str(number) for number in range(2500)]
    await asyncio.gather(*(store.aput((root,), key, {}, index=False) for key in keys))
    got = await store.abatch([GetOp((root,), key) for key in keys])
    assert [item.key for item in got] == keys  # type: ignore[union-attr]
    store.batch([PutOp((root,), key, None) for key in keys])
    assert await asyncio.gather(*(store.aget((root,), key) for key in keys)) == [None] * 2500


@pytest.mark.parametrize("namespace", [(), ("",), ("a", 1), ("a\x00",), ("x" * 129,), ("a",) * 17])
async def test_a_bad_namespace_is_langgraphs_error(store: MemorydStore, namespace: Any) -> None:
    with pytest.raises(InvalidNamespaceError):
        store.put(namespace, "k", {})
    good, bad = await asyncio.gather(
        store.aget(("a",), "k"), store.aput(namespace, "k", {}), return_exceptions=True
    )
    assert good is None
    assert isinstance(bad, InvalidNamespaceError)


@pytest.mark.parametrize("blocking", [True, False])
async def test_only_operations_write_langgraphs_own_label(
    store: MemorydStore, root: str, blocking: bool
) -> None:
    namespace = ("langgraph", root)
    with pytest.raises(InvalidNamespaceError, match="reserved"):
        store.put(namespace, "k", {}) if blocking else await store.aput(namespace, "k", {})
    await store.abatch([PutOp(namespace, "k", {})])
    assert await store.aget(namespace, "k") is not None


@pytest.mark.parametrize(
    "search", [{"limit": -1}, {"offset": -1}, {"filter": {"a": {"$near": 1}}}, {"limit": 5000}]
)
async def test_bad_input_is_a_value_error(store: MemorydStore, search: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"limit|offset|\$near") as raised:
        await store.asearch(("a",), **search)
    assert isinstance(raised.value, MemorydError)
    assert raised.value.status == 422
    assert raised.value.request_id


async def test_a_store_belongs_to_the_loop_that_opened_it(server: Server, root: str) -> None:
    async with MemorydStore(server.url) as store:
        with pytest.raises(asyncio.InvalidStateError, match="a blocking call"):
            store.get((root,), "k")
        await asyncio.to_thread(store.put, (root,), "k", {})
        assert await store.aget((root,), "k") is not None
    assert store.ttl_config is None


def test_a_store_outlives_event_loops(server: Server, root: str) -> None:
    store = MemorydStore(server.url)

    async def add(key: str) -> None:
        await store.aput((root,), key, {})

    for key in ("1", "2"):
        asyncio.run(add(key))
    threads = [threading.Thread(target=asyncio.run, args=[add(key)]) for key in ("3", "4")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store:
        assert {item.key for item in store.search((root,))} == {"1", "2", "3", "4"}
    gc.collect()  # a connection that is still open would warn


def numbers_of(result: Result) -> list[int]:
    items = result if isinstance(result, list) else [result]
    return [item.value["n"] for item in items if isinstance(item, Item)]


async def test_answers_cut_short_by_the_server_are_completed(
    store: MemorydStore, root: str
) -> None:
    for number in range(9):
        await store.aput((root,), f"k{number}", {"text": "x" * 900_000, "n": number}, index=False)
    found = store.search((root,), limit=8)
    assert [item.value["n"] for item in found] == [8, 7, 6, 5, 4, 3, 2, 1]
    gets = [GetOp((root,), f"k{number}") for number in range(9)]
    [*items, listed] = await store.abatch([*gets, SearchOp((root,), limit=9, offset=2)])
    assert [numbers_of(item) for item in items] == [[number] for number in range(9)]
    assert numbers_of(listed) == [6, 5, 4, 3, 2, 1, 0]
