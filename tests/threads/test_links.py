"""Memories lead to their messages, messages to their memories, and hits to their neighbors."""

from typing import Any

import httpx2

from tests.support.app import Store
from tests.support.threads import Threads, says

ANA = ["users", "ana"]


async def put(store: Store, key: str, position: int, *ids: str, kind: str = "memory") -> None:
    source = {"thread_id": "t", "position": position, "message_ids": list(ids)}
    content = {"role": "user", "text": key} if kind == "message" else {"content": key}
    value: dict[str, Any] = {"kind": kind, "content": content}
    await store.put(ANA, key, value, source=source, said_last=f"2026-01-0{position + 1}")


async def test_memories_and_messages_lead_to_each_other(
    threads: Threads, client: httpx2.AsyncClient
) -> None:
    said = [says(f"sentence {n}", f"m{n}") for n in range(5)]
    await threads.append("t", *said, namespace=ANA)
    await threads.append("u", says("other", "m1"), namespace=ANA)
    store = Store(client)
    await put(store, "a", 1, "m1", "m3", "m9")
    await put(store, "b", 3, "m3")
    await store.put(ANA, "of-u", {"text": "a"}, source={"thread_id": "u", "message_ids": ["m1"]})
    await store.put(ANA, "odd", {"text": "a"}, source={"thread_id": "t", "message_ids": "m3"})

    async def sources(key: str, **query: Any) -> list[int]:
        page = await threads.messages("t", memory_key=key, **query)
        return [message["position"] for message in page["messages"]]

    assert await sources("a") == [1, 3]
    assert await sources("a", cursor=2) == [3]
    assert await sources("a", limit=1) == [1]
    assert await sources("b") == [3]
    assert [await sources(key) for key in ("of-u", "odd", "none")] == [[], [], []]

    async def memories(message_id: str, **query: Any) -> Any:
        query = {"message_id": message_id, **query}
        return await threads.call("GET", "t", "/memories", status=200, params=query)

    async def keys(message_id: str) -> list[str]:
        return [memory["key"] for memory in (await memories(message_id))["memories"]]

    assert await keys("m1") == ["a"]
    assert await keys("m3") == ["a", "b", "odd"]
    assert await keys("m0") == []
    page = await memories("m3", limit=1)
    page = await memories("m3", limit=2, cursor=page["next_cursor"])
    assert [memory["key"] for memory in page["memories"]] == ["b", "odd"]
    await threads.call("GET", "t", "/memories", status=422)


async def test_items_are_found_with_the_messages_around_them(store: Store) -> None:
    for position in range(6):
        await put(store, f"said {position}", position, kind="message")
    await put(store, "ramen", 2)
    await store.put(["users", "ben"], "said 3", {"kind": "message"}, source={"thread_id": "t"})
    [memory, *_] = await store.search(ANA, query="ramen", context=1)
    assert [item["key"] for item in memory["context"]] == ["said 1", "said 2", "said 3"]
    assert memory["context"][0]["said_last"] == "2026-01-02T00:00:00+00:00"
    assert memory["context"][0]["value"]["content"]["role"] == "user"
    for filter_ in ({"$meta": {"key": "said 4"}}, {"$meta": {"key": "said 0"}}):
        [message] = await store.search(ANA, filter=filter_, context=2)
        position = int(message["key"][-1])
        expected = [n for n in range(position - 2, position + 3) if n in range(6) and n != position]
        assert [item["key"] for item in message["context"]] == [f"said {n}" for n in expected]
    assert "context" not in (await store.search(ANA, query="ramen"))[0]
    refused = {"namespace_prefix": ANA, "limit": 1000, "context": 2}
    await store.call("POST", "/v1/store/items/search", status=422, json=refused)
