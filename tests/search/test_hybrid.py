"""Meaning, words, weights and pins together, over HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import asyncpg
import numpy as np
import pytest
from typing_extensions import override

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder, TextKind, Vector
from tests.search.requests import NOTES, keys, put_texts, say, scores
from tests.support.app import Store, running


class ScriptedEmbedder(FakeEmbedder):
    """Gives texts the meaning they are said to have: an angle, in degrees; others a right angle."""

    name = "fake:scripted"

    def __init__(self, angles: Mapping[str, float]) -> None:
        super().__init__(dimensions=2)
        self._angles = angles

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        angles = np.radians([self._angles.get(text, 90) for text in texts])
        return [*np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)]


@pytest.fixture
async def scripted(settings: Settings, clock: FrozenClock) -> AsyncIterator[Store]:
    """A store in which a feline is near a cat, and all else is about something else."""
    angles = {"where is my feline": 0, "a cat sleeps on the sofa": 15, "invoice INV-2024-0093": 100}
    app = create_app(settings, embedder=ScriptedEmbedder(angles), clock=clock)
    async with running(app) as client:
        yield Store(client)


async def test_what_only_words_tell_can_come_first(scripted: Store) -> None:
    texts = {"cat": "a cat sleeps on the sofa", "invoice": "invoice INV-2024-0093", "tea": "tea"}
    await put_texts(scripted, texts)
    assert (await keys(scripted, "INV-2024-0093"))[0] == "invoice"
    assert await keys(scripted, "INV-2024-0093", mode="text") == ["invoice"]


async def test_what_only_meaning_tells_can_come_first(scripted: Store) -> None:
    await put_texts(scripted, {"cat": "a cat sleeps on the sofa", "where": "where to buy my tea"})
    query = "where is my feline"
    assert (await keys(scripted, query))[0] == "cat"
    found = await scores(scripted, query, mode="vector")
    assert found == {"cat": pytest.approx(0.9659, abs=1e-3), "where": pytest.approx(0, abs=1e-3)}
    assert await keys(scripted, query, mode="text") == []


async def test_words_of_many_kinds_are_found(store: Store) -> None:
    await put_texts(
        store,
        {
            "invoice": "the invoice INV-2024-0093 is overdue",
            "other": "the invoice INV-2023-0017 is paid",
            "code": "class HTTPServer listens on a port",
            "japanese": "東京でラーメンを食べました",
            "german": "Anna hat die beiden alten Häuser auf dem Hügel gekauft",
            "english": "she runs every morning",
        },
    )
    for query, key in {
        "INV-2024-0093": "invoice",
        "HTTPServer": "code",
        "東京": "japanese",
        "Welches Haus hat Anna gekauft?": "german",
        "running": "english",
    }.items():
        assert (await keys(store, query, mode="text"))[:1] == [key], query


async def test_text_mode_leaves_out_what_has_no_word(store: Store) -> None:
    await store.put(NOTES, "hidden", {"t": "pizza"}, index=False)
    await put_texts(store, {"both": "ramen soup", "one": "ramen", "none": "tea"})
    assert await keys(store, "ramen soup", mode="text") == ["both", "one"]


async def test_a_query_of_words_that_stand_nowhere_is_compared_by_meaning_alone(
    store: Store,
) -> None:
    await put_texts(store, {f"k{n}": text for n, text in enumerate(["ramen soup", "tea", "rice"])})
    for query in ("unheard words", "is she"):
        by_meaning = await scores(store, query, mode="vector")
        expected = {key: max(0, by_meaning[key] or 0) for key in by_meaning}
        assert await scores(store, query) == expected
        assert await keys(store, query, mode="text") == []


@pytest.fixture
async def pinned(store: Store) -> Store:
    await put_texts(store, {"a": "ramen soup", "b": "ramen"})
    await put_texts(store, {"pin": "tea leaves"}, pinned=True)
    return store


async def test_a_pinned_item_comes_first(pinned: Store) -> None:
    assert (await keys(pinned, "ramen soup"))[0] == "pin"
    assert await keys(pinned, "ramen soup", limit=1, offset=1) == ["a"]


async def test_a_pinned_item_stays_below_min_score_but_needs_a_word_in_text_mode(
    pinned: Store,
) -> None:
    assert await keys(pinned, "ramen soup", min_score=1) == ["pin"]
    assert await keys(pinned, "ramen soup", mode="text") == ["a", "b"]
    assert (await keys(pinned, "ramen soup leaves", mode="text"))[0] == "pin"


async def test_min_score_leaves_out_what_scores_less(store: Store) -> None:
    await put_texts(store, {"a": "ramen soup", "b": "ramen", "c": "tea"})
    await store.put(NOTES, "unscored", {"text": "ramen"}, index=False)
    found = await scores(store, "ramen soup")
    assert list(found) == ["a", "b", "c", "unscored"]
    for key in "ab":
        kept = await scores(store, "ramen soup", min_score=found[key])
        assert kept == {k: v for k, v in found.items() if v is not None and v >= (found[key] or 0)}
    assert "unscored" not in await scores(store, "ramen soup", min_score=0)


async def test_weights_decide_what_counts(
    store: Store, clock: FrozenClock, settings: Settings
) -> None:
    await put_texts(store, {"relevant": "ramen soup"})
    await put_texts(store, {"important": "tea"}, importance=1)
    await put_texts(store, {"used": "coffee"})
    clock.advance(timedelta(days=30))
    await put_texts(store, {"recent": "bread"})
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("SELECT set_config('memoryd.root', '', false)")
    await connection.execute(
        "INSERT INTO item_usage (namespace, item_id, uses, last_used_at) "
        "SELECT namespace, id, 1, $1 FROM items WHERE key = 'used'",
        clock.now() - timedelta(days=7),
    )
    await connection.close()

    async def first(**weights: float) -> tuple[str, float | None]:
        found = await scores(store, "ramen soup", weights={"relevance": 0, **weights})
        return next(iter(found.items()))

    assert (await first(relevance=1))[0] == "relevant"
    assert await first(recency=1) == ("recent", 1)
    assert await first(importance=2) == ("important", 1)
    assert await first(strength=0.1) == ("used", 0.5)
    recency = {"weights": {"relevance": 0, "recency": 1}}
    assert (await scores(store, "ramen", **recency))["used"] == 0.5
    slower = recency | {"half_life_days": {"recency": 60}}
    assert (await scores(store, "ramen", **slower))["used"] == pytest.approx(0.5**0.5)
    strength = {"weights": {"relevance": 0, "strength": 1}, "half_life_days": {"strength": 3.5}}
    assert (await scores(store, "ramen", **strength))["used"] == pytest.approx(0.25)


async def test_a_batch_searches_as_a_search_does(store: Store) -> None:
    await say(store, "ramen soup", "tea", "ramen")
    for body in (
        {"query": "ramen", "mode": "text", "explain": True, "with_total": True},
        {"query": "ramen tea", "weights": {"relevance": 1, "recency": 2}, "limit": 1},
        {"query": "ramen", "diversity": 0.5, "max_tokens": 12, "min_score": 0.1},
        {"sort": "key", "limit": 2, "with_total": True},
    ):
        alone = await store.client.post("/v1/store/items/search", json=body)
        assert alone.json()["items"]
        [result] = await store.batch({"op": "search", **body})
        assert result == {"op": "search", "found": alone.json()}
