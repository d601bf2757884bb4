"""Scopes that are too large to read: what the indexes name is ranked as if all had been read."""

import pytest

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from tests.search.requests import (
    NOTES,
    all_pages,
    analyze,
    keys,
    keys_of,
    page,
    put_parts,
    put_texts,
)
from tests.search.test_hybrid import ScriptedEmbedder
from tests.support.app import Store, running

MODES = ("hybrid", "vector", "text")


@pytest.mark.slow
async def test_the_index_finds_what_comparing_everything_finds(
    store: Store, indexed: Store, settings: Settings
) -> None:
    puts = [
        {
            "op": "put",
            "namespace": [*NOTES, "odd" if n % 2 else "even"],
            "key": f"k{n:02}",
            "value": {"parts": [f"ramen{m % 7} word{n}" for m in range(1 + n % 5)], "n": n},
            "index": ["parts[*]"],
        }
        for n in range(40)
    ]
    await indexed.batch(*puts)
    await analyze(settings)
    for body in (
        {"query": "ramen3", "limit": 7},
        {"query": "ramen3 word9", "limit": 7, "offset": 7},
        {"query": "word9", "filter": {"n": {"$gt": 30}}, "limit": 50},
        {"query": "word9", "filter": {"n": 39}, "limit": 5},
    ):
        for prefix in ([*NOTES, "even"], [*NOTES, "odd"], NOTES):
            for mode in MODES:
                ours, theirs = [
                    await page(asked, namespace_prefix=prefix, mode=mode, **body)
                    for asked in (indexed, store)
                ]
                assert [item["score"] for item in ours["items"]] == [
                    item["score"] for item in theirs["items"]
                ], (prefix, body, mode)


async def test_candidates_say_which_list_they_were_in(indexed: Store, settings: Settings) -> None:
    await put_texts(indexed, {f"k{n:03}": "ramen" if n == 7 else f"tea{n}" for n in range(120)})
    await analyze(settings)
    answer = await page(indexed, query="ramen", limit=3, explain=True)
    assert (answer["search"]["scope"], answer["search"]["passages"]) == ("index", 120)
    assert answer["items"][0]["key"] == "k007"
    assert [item["explanation"]["found_by"] for item in answer["items"]] == [
        ["vector", "text"],
        ["vector"],
        ["vector"],
    ]


async def test_a_filter_that_leaves_little_is_applied_first(
    indexed: Store, settings: Settings
) -> None:
    await put_texts(indexed, {f"k{n:02}": f"tea{n}" for n in range(60)})
    await analyze(settings)
    narrow = await page(indexed, query="tea", filter={"text": "tea8"}, explain=True)
    assert narrow["search"]["scope"] == "filter_first"
    assert keys_of(narrow) == ["k08"]


async def test_a_pinned_item_comes_first_however_far_it_is(
    indexed: Store, settings: Settings
) -> None:
    await put_texts(indexed, {f"k{n}": f"ramen soup {n}" for n in range(150)})
    await put_texts(indexed, {"pin": "zzz"}, pinned=True)
    await analyze(settings)
    assert (await keys(indexed, "ramen"))[0] == "pin"
    assert "pin" not in await keys(indexed, "ramen", filter={"text": {"$ne": "zzz"}})


async def test_an_item_with_many_passages_does_not_crowd_out_others_in_text_mode(
    indexed: Store, settings: Settings
) -> None:
    await put_parts(indexed, "big", *["ramen ramen ramen"] * 150)
    await put_texts(indexed, {f"k{n}": f"ramen soup {n}" for n in range(5)})
    await analyze(settings)
    assert len(await keys(indexed, "ramen", mode="text")) == 6


@pytest.mark.slow
async def test_pages_are_complete_and_disjoint(indexed: Store, settings: Settings) -> None:
    await put_texts(indexed, {f"k{n}": f"ramen w{n % 7} x{n}" for n in range(200)})
    await analyze(settings)
    for mode in MODES:
        pages = await all_pages(indexed, query="ramen w3 x9", mode=mode, limit=40)
        assert [len(found) for found in pages] == [40] * 5
        assert len({key for found in pages for key in found}) == 200


async def test_what_does_not_pass_the_filter_crowds_no_word_out(
    settings: Settings, clock: FrozenClock
) -> None:
    angles = {"ramen?": 0.0, "ramen": 90.0} | {f"tea{n}": 80.0 for n in range(150)}
    eager = settings.model_copy(update={"exact_search_passages": 0})
    app = create_app(eager, embedder=ScriptedEmbedder(angles), clock=clock)
    async with running(app) as client:
        store = Store(client)
        await put_texts(store, {f"a{n:03}": "ramen" for n in range(150)})
        await put_texts(store, {f"b{n:03}": f"tea{n}" for n in range(150)}, importance=1)
        await put_texts(store, {"wanted": "ramen"}, importance=1)
        await analyze(settings)
        body = {"query": "ramen?", "filter": {"$meta": {"importance": 1}}, "explain": True}
        answer = await page(store, **body)
        assert answer["search"]["scope"] == "index"
        assert answer["items"][0]["key"] == "wanted"
