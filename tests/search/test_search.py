"""Searching over HTTP."""

from datetime import timedelta
from typing import Any

import httpx2
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


@pytest.mark.parametrize("query", ["", "   ", None])
async def test_an_empty_query_is_no_query(filled: Store, query: str | None) -> None:
    assert [item["score"] for item in await filled.search(ALICE, query=query)] == [None] * 3


async def test_a_prefix_ends_at_a_label(filled: Store) -> None:
    await filled.put(["users", "alice2"], "k", {"text": "alice"})
    assert set(keys(await filled.search(ALICE, query="alice"))) == set(FACTS)
    assert keys(await filled.search(["users", "ali"])) == []
    assert len(await filled.search([])) == 4


async def test_filters_narrow_a_search(filled: Store) -> None:
    found = await filled.search(ALICE, query="alice", filter={"length": {"$gte": 35}})
    assert set(keys(found)) == {key for key, text in FACTS.items() if len(text) >= 35}


async def test_items_that_are_not_embedded_fill_up_the_page_without_a_score(
    filled: Store,
) -> None:
    await filled.put(ALICE, "hidden", {"text": "alice likes ramen"}, index=False)
    found = await filled.search(ALICE, query="ramen")
    assert keys(found)[-1] == "hidden"
    assert found[-1]["score"] is None
    assert "hidden" not in keys(await filled.search(ALICE, query="ramen", limit=3))


async def test_pages_with_a_query_are_complete_and_disjoint(store: Store) -> None:
    many = {"op": "put", "namespace": ["many"], "index": ["text"]}
    await store.batch(
        *({**many, "key": f"k{n:02}", "value": {"text": f"word{n} ramen"}} for n in range(30))
    )
    pages = [
        keys(await store.search(["many"], query="ramen", limit=5, offset=offset))
        for offset in range(0, 35, 5)
    ]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 5, 5, 0]
    assert sorted(key for page in pages for key in page) == [f"k{n:02}" for n in range(30)]


async def test_an_item_with_many_passages_takes_one_place_with_its_best(store: Store) -> None:
    parts = [f"ramen part {n}" for n in range(60)]
    await store.put(["crowd"], "big", {"parts": [*parts, "ramen"]}, index=["parts[*]"])
    for n in range(10):
        await store.put(["crowd"], f"k{n}", {"parts": [f"ramen {n}"]}, index=["parts[*]"])
    found = await store.search(["crowd"], query="ramen", limit=5, mode="vector")
    assert len(set(keys(found))) == 5
    assert (found[0]["key"], found[0]["score"]) == ("big", pytest.approx(1, abs=1e-3))


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


async def test_the_whole_value_can_be_asked_for_by_its_path(store: Store) -> None:
    await store.put(["whole"], "k", {"b": "ramen"}, index=["$"])
    found = await store.search(["whole"], query='{"b": "ramen"}', mode="vector")
    assert found[0]["score"] > 0.99


async def test_a_limit_of_zero_finds_nothing(filled: Store) -> None:
    assert await filled.search(ALICE, limit=0) == []


async def test_null_stands_for_the_default(filled: Store, client: httpx2.AsyncClient) -> None:
    body = {"namespace_prefix": None, "limit": None, "offset": None, "filter": None}
    response = await client.post("/v1/store/items/search", json=body)
    assert len(response.json()["items"]) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"offset": -1}, "offset"),
        ({"query": "a\x00"}, "query"),
        ({"namespace_prefix": ["a", ""]}, "namespace_prefix"),
        ({"filter": {"a": {"$in": 1}}}, "filter.a.$in"),
        ({"filter": {"a": "\x00"}}, "filter.a"),
        ({"filter": []}, "filter"),
    ],
)
async def test_bad_searches_are_refused_naming_the_field(
    client: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    response = await client.post("/v1/store/items/search", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_without_an_embedding_model_words_are_compared(
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


async def test_nothing_can_be_compared_by_meaning_where_nothing_is_embedded(
    settings: Settings, clock: FrozenClock
) -> None:
    plain = settings.model_copy(update={"embedding": "none"})
    async with running(create_app(plain, clock=clock)) as client:
        body = {"query": "ramen", "mode": "vector"}
        response = await client.post("/v1/store/items/search", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "mode"
