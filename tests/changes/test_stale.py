"""Memories that rest on others which have changed or ended."""

from datetime import timedelta
from typing import Any

from app.clock import FrozenClock
from tests.support.app import Store

NOTES = ["notes"]


async def put(store: Store, key: str, text: str, *sources: str) -> None:
    source: dict[str, Any] | None = {"memory_keys": list(sources)} if sources else None
    await store.put(NOTES, key, {"text": text}, index=["text"], source=source)


async def stale(store: Store) -> list[str]:
    found = await store.search(NOTES, filter={"$meta": {"stale": True}}, sort="key")
    assert all(item["stale"] is True for item in found)
    fresh = await store.search(NOTES, query="ramen", filter={"$meta": {"stale": False}})
    assert not any("stale" in item for item in fresh)
    return [item["key"] for item in found]


async def test_a_change_marks_what_rests_on_it_as_stale(store: Store, clock: FrozenClock) -> None:
    await put(store, "a", "ramen")
    await put(store, "b", "soba")
    await put(store, "of-a", "likes ramen", "a")
    await put(store, "of-both", "likes noodles", "b", "a")
    await store.put(["others"], "of-a", {"text": "ramen"}, source={"memory_keys": ["a"]})
    await put(store, "a", "ramen")  # the same text
    assert await stale(store) == []
    await put(store, "a", "no ramen")
    assert await stale(store) == ["of-a", "of-both"]
    await put(store, "of-a", "likes no ramen", "a")
    assert await stale(store) == ["of-both"]
    clock.advance(timedelta(seconds=1))
    await store.delete(NOTES, "a")
    assert await stale(store) == ["of-a", "of-both"]
    assert (await store.get(NOTES, "of-a"))["stale"] is True


async def test_what_is_written_with_its_sources_is_not_stale(store: Store) -> None:
    await put(store, "a", "ramen")
    await put(store, "b", "soba")
    operation: dict[str, Any] = {"op": "put", "namespace": NOTES}
    source = {"memory_keys": ["a", "b"]}
    await store.batch(
        {**operation, "key": "a", "value": {"text": "no ramen"}},
        {**operation, "key": "of-both", "value": {"text": "soba"}, "source": source},
        {"op": "delete", "namespace": NOTES, "key": "b"},
    )
    assert await stale(store) == []
