"""Pages: by cursor and by offset, whatever changes in between."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from app.clock import FrozenClock
from tests.search.requests import NOTES, all_pages, keys, keys_of, page, put_texts
from tests.support.app import Store

SORTS = ("updated_at", "-updated_at", "created_at", "-created_at", "key", "-key")
RANKED: dict[str, Any] = {"query": "ramen soup"}


@pytest.fixture
async def filled(store: Store, clock: FrozenClock) -> Store:
    """Eleven items: of all words, of some, of none, equal ones, pinned ones, one not indexed."""
    texts = ["ramen soup", "ramen", "soup", "tea", "ramen", "ramen", "soup tea", "x", "ramen soup"]
    for n, text in enumerate(texts):
        clock.advance(timedelta(seconds=n % 2))
        more: dict[str, Any] = {"importance": n / 10, "pinned": n in {3, 8}}
        await store.put(NOTES, f"k{n}", {"text": text, "n": n}, index=["text"], **more)
    await store.put(NOTES, "unscored", {"text": "ramen"}, index=False)
    await store.put(NOTES, "early", {"text": "soup"}, index=["text"])
    await store.put(NOTES, "k0", {"text": "ramen soup"}, index=["text"])
    return store


RANKINGS: list[dict[str, Any]] = [
    RANKED,
    {**RANKED, "mode": "vector"},
    {**RANKED, "mode": "text"},
    {**RANKED, "min_score": 0.3},
    {**RANKED, "weights": {"relevance": 1, "recency": 1, "importance": 1, "strength": 1}},
    {**RANKED, "weights": {"relevance": 0, "importance": 1}},
    {**RANKED, "filter": {"n": {"$gte": 3}}},
    {**RANKED, "filter": {"n": {"$lt": 10**30}}},
]
LISTINGS: list[dict[str, Any]] = [
    {},
    *({"sort": sort} for sort in SORTS),
    {"sort": "key", "filter": {"n": {"$gte": 3}}},
    {"sort": "key", "filter": {"n": {"$lt": 10**30}}},
]


@pytest.mark.parametrize("bodies", [RANKINGS, LISTINGS], ids=["rankings", "listings"])
async def test_pages_of_every_size_follow_the_order_of_one_large_page(
    filled: Store, bodies: list[dict[str, Any]]
) -> None:
    for body in bodies:
        whole = await page(filled, limit=100, with_total=True, **body)
        order = keys_of(whole)
        assert whole["next_cursor"] is None
        assert whole["total"] == len(order) == len(set(order)) > 1
        for limit in (1, 3, len(order)):
            pages = await all_pages(filled, limit=limit, **body)
            assert [key for found in pages for key in found] == order, body
            assert [len(found) for found in pages[:-1]] == [limit] * (len(pages) - 1)
            assert pages[-1]


async def test_a_listing_is_in_the_order_asked_for(filled: Store) -> None:
    for sort in SORTS:
        items = (await page(filled, sort=sort))["items"]
        values = [item[sort.removeprefix("-")] for item in items]
        assert values == sorted(values, reverse=sort.startswith("-"))


async def test_a_cursor_goes_on_behind_an_offset_with_another_page_size(filled: Store) -> None:
    for body in (RANKED, {}):
        order = keys_of(await page(filled, limit=100, **body))
        first = await page(filled, limit=3, offset=2, **body)
        later = {
            "limit": 5,
            "cursor": first["next_cursor"],
            "with_total": True,
            "explain": bool(body),
        }
        second = await page(filled, **later, **body)
        assert keys_of(first) + keys_of(second) == order[2:10]
        assert second["total"] == 11


@pytest.mark.parametrize("body", [{**RANKED, "mode": "vector"}, {"sort": "key"}, {}], ids=str)
async def test_pages_repeat_and_miss_nothing_while_items_come_and_go(
    filled: Store, clock: FrozenClock, body: dict[str, Any]
) -> None:
    stay = keys_of(await page(filled, limit=100, **body))
    found, cursor = [], None
    for turn in range(20):
        answer = await page(filled, limit=2, cursor=cursor, **body)
        found += keys_of(answer)
        cursor = answer["next_cursor"]
        if cursor is None:
            break
        clock.advance(timedelta(hours=1))
        await filled.put(NOTES, f"new{turn}", {"text": "ramen soup"}, index=["text"])
        gone = found[-1]  # the one that the cursor stands behind
        await filled.delete(NOTES, gone)
    assert len(found) == len(set(found))
    assert [key for key in found if not key.startswith("new")] == stay


async def test_recency_is_reckoned_from_the_first_page(filled: Store, clock: FrozenClock) -> None:
    body = {**RANKED, "weights": {"recency": 1}, "limit": 4}
    whole = await page(filled, **body | {"limit": 8})
    first = await page(filled, **body)
    clock.advance(timedelta(days=60))
    second = await page(filled, cursor=first["next_cursor"], **body)
    assert second["items"] == whole["items"][4:]


@pytest.mark.parametrize("mode", ["hybrid", "text"])
async def test_what_is_added_meanwhile_does_not_change_the_scores_of_later_pages(
    store: Store, mode: str
) -> None:
    await put_texts(
        store, {f"k{n}": "ramen " + " ".join(f"w{n}{i}" for i in range(n * 3)) for n in range(8)}
    )
    body = {"query": "ramen", "mode": mode}
    order = await keys(store, limit=100, **body)
    found, cursor = [], None
    for turn in range(4):
        answer = await page(store, limit=2, cursor=cursor, **body)
        found += keys_of(answer)
        cursor = answer["next_cursor"]
        await put_texts(store, {f"new{turn}": "unheard " * 300})
    assert [key for key in found if key.startswith("k")] == order


async def test_the_total_is_told_with_a_limit_of_zero(store: Store) -> None:
    await put_texts(store, {"k": "ramen"})
    for query in (None, "ramen"):
        answer = await page(store, query=query, limit=0, with_total=True)
        assert answer == {"items": [], "next_cursor": None, "total": 1}
        assert await page(store, query=query, limit=0) == {"items": [], "next_cursor": None}


async def test_pages_by_offset_of_a_diverse_search_are_disjoint(store: Store) -> None:
    chance = np.random.default_rng(3)
    words = {f"k{n}": chance.integers(0, 12, 4) for n in range(30)}
    await put_texts(
        store, {key: " ".join(["ramen", *(f"w{n}" for n in those)]) for key, those in words.items()}
    )
    body = {"query": "ramen w1", "limit": 5, "diversity": 0.6, "with_total": True}
    answers = [await page(store, offset=offset, **body) for offset in range(0, 30, 5)]
    assert {key for answer in answers for key in keys_of(answer)} == words.keys()
    assert [answer["total"] for answer in answers] == [30] * 6


async def test_a_default_may_be_spelled_out_on_a_later_page(filled: Store) -> None:
    cursor = (await page(filled, limit=2, **RANKED))["next_cursor"]
    spelled = {"mode": "hybrid", "weights": {"relevance": 1}, "filter": {}}
    later = await page(filled, limit=2, cursor=cursor, **RANKED, **spelled)
    assert keys_of(later) == keys_of(await page(filled, limit=2, cursor=cursor, **RANKED))
