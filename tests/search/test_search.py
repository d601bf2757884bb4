"""Searching over HTTP."""

from datetime import timedelta
from typing import Any

import pytest

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from tests.support.app import Store, running

FACTS = {
    "food": "alice likes ramen and spicy noodles",
    "city": "alice lives in rome near the river",
    "work": "alice writes compilers for a living",
}
ALICE = ["users", "alice"]


@pytest.fixture
async def filled(store: Store) -> Store:
    for key, text in FACTS.items():
        await store.put(ALICE, key, {"text": text, "length": len(text)}, index=["text"])
    return store


def keys(items: list[dict[str, Any]]) -> list[str]:
    return [item["key"] for item in items]


async def test_the_nearest_comes_first_with_its_similarity(filled: Store) -> None:
    query = "alice lives in rome near the river"
    found = await filled.search(["users"], query=query, mode="vector")
    assert found[0]["key"] == "city"
    assert found[0]["score"] == pytest.approx(1, abs=1e-3)
    scores = [item["score"] for item in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) == 3


async def test_without_a_query_the_last_updated_comes_first(
    filled: Store, clock: FrozenClock
) -> None:
    for key in ("work", "food", "city"):
        clock.advance(timedelta(seconds=1))
        await filled.put(ALICE, key, {"text": key})
    found = await filled.search(ALICE)
    assert keys(found) == ["city", "food", "work"]
    assert [item["score"] for item in found] == [None] * 3


async def test_an_empty_query_is_no_query(filled: Store) -> None:
    for query in ("", "   "):
        assert [item["score"] for item in await filled.search(ALICE, query=query)] == [None] * 3


async def test_a_prefix_ends_at_a_label(filled: Store) -> None:
    await filled.put(["users", "alice2"], "k", {"text": "alice"})
    assert set(keys(await filled.search(ALICE, query="alice"))) == set(FACTS)
    assert keys(await filled.search(["users", "ali"])) == []
    assert len(await filled.search([])) == 4


async def test_items_that_are_not_embedded_fill_up_the_page_without_a_score(
    filled: Store,
) -> None:
    await filled.put(ALICE, "hidden", {"text": "alice likes ramen"}, index=False)
    found = await filled.search(ALICE, query="ramen")
    assert keys(found)[-1] == "hidden"
    assert found[-1]["score"] is None
    assert "hidden" not in keys(await filled.search(ALICE, query="ramen", limit=3))


async def test_no_stale_text_is_found(store: Store) -> None:
    async def score_of(query: str) -> float | None:
        found = await store.search(["stale"], query=query, mode="vector")
        return None if found[0]["score"] is None else round(found[0]["score"])

    index = ["tags[*]"]
    await store.put(["stale"], "k", {"tags": ["apple", "banana", "cherry"]}, index=index)
    assert await score_of("cherry") == 1
    await store.put(["stale"], "k", {"tags": ["apple"]}, index=index)
    assert await score_of("cherry") == 0
    await store.put(["stale"], "k", {"other": "apple"}, index=index)
    assert await score_of("apple") is None
    await store.put(["stale"], "k", {"tags": ["apple"]}, index=index)
    assert await score_of("apple") == 1
    await store.put(["stale"], "k", {"tags": ["apple"]}, index=False)
    assert await score_of("apple") is None


async def test_only_the_indexed_paths_are_found(store: Store) -> None:
    value = {"title": "ramen", "body": "pizza", "meta": {"tags": ["soup", "noodle"]}}
    await store.put(["p"], "k", value, index=["title", "meta.tags[*]"])
    for query, score in (("ramen", 1), ("noodle", 1), ("pizza", 0)):
        found = await store.search(["p"], query=query, mode="vector")
        assert round(found[0]["score"]) == score
    await store.put(["whole"], "k", {"b": "ramen"}, index=["$"])
    found = await store.search(["whole"], query='{"b": "ramen"}', mode="vector")
    assert found[0]["score"] > 0.99


async def test_without_an_embedding_model_only_words_are_compared(
    settings: Settings, clock: FrozenClock
) -> None:
    plain = settings.model_copy(update={"embedding": "none"})
    async with running(create_app(plain, clock=clock)) as client:
        store = Store(client)
        await store.put(ALICE, "food", {"text": "ramen"}, index=["text"])
        await store.put(ALICE, "drink", {"text": "tea"}, index=["text"])
        found = await store.search(ALICE, query="ramen")
        assert [(item["key"], item["score"]) for item in found] == [
            ("food", pytest.approx(1 / 1.9, abs=1e-6)),
            ("drink", 0),
        ]
        body = {"query": "ramen", "mode": "vector"}
        refused = await store.call("POST", "/v1/store/items/search", status=422, json=body)
        assert refused.json()["errors"][0]["field"] == "mode"
