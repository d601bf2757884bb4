"""Meaning, words, conversations and pins together, over HTTP."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
from typing_extensions import override

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from app.providers.embeddings.base import Embedder, Vector
from app.providers.embeddings.fake import FakeEmbedder
from tests.support.app import Store, running

NOTES = ["notes"]
MODES = ("hybrid", "vector", "text")


class ScriptedEmbedder(FakeEmbedder):
    """Gives texts the meaning they are said to have: an angle, in degrees; others a right angle."""

    name = "fake:scripted"

    def __init__(self, angles: Mapping[str, float]) -> None:
        super().__init__(dimensions=2)
        self._angles = angles

    @override
    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        angles = np.radians([self._angles.get(text, 90) for text in texts])
        return [*np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)]


@asynccontextmanager
async def serving(settings: Settings, clock: FrozenClock, embedder: Embedder) -> Any:
    async with running(create_app(settings, embedder=embedder, clock=clock)) as client:
        yield Store(client)


@pytest.fixture
async def scripted(settings: Settings, clock: FrozenClock) -> AsyncIterator[Store]:
    """A store in which a feline is near a cat, and all else is about something else."""
    angles = {"where is my feline": 0, "a cat sleeps on the sofa": 15, "invoice INV-2024-0093": 100}
    async with serving(settings, clock, ScriptedEmbedder(angles)) as store:
        yield store


async def put(store: Store, texts: Mapping[str, str], **more: Any) -> None:
    for key, text in texts.items():
        await store.put(NOTES, key, {"text": text}, index=["text"], **more)


async def say(
    store: Store, *turns: str, thread: str = "t", namespace: Sequence[str] = NOTES
) -> None:
    """Put the turns of a conversation, each under its place in it."""
    for position, text in enumerate(turns):
        source = {"thread_id": thread, "position": position}
        key = f"{thread}{position}"
        await store.put([*namespace], key, {"text": text}, index=["text"], source=source)


async def keys(store: Store, query: str, **body: Any) -> list[str]:
    return [item["key"] for item in await store.search(NOTES, query=query, **body)]


async def scores(store: Store, query: str, **body: Any) -> dict[str, float | None]:
    found = await store.search(NOTES, query=query, **body)
    return {item["key"]: item["score"] for item in found}


async def test_what_only_words_tell_can_come_first(scripted: Store) -> None:
    texts = {"cat": "a cat sleeps on the sofa", "invoice": "invoice INV-2024-0093", "tea": "tea"}
    await put(scripted, texts)
    assert (await keys(scripted, "INV-2024-0093"))[0] == "invoice"
    assert await keys(scripted, "INV-2024-0093", mode="text") == ["invoice"]


async def test_what_only_meaning_tells_can_come_first(scripted: Store) -> None:
    await put(scripted, {"cat": "a cat sleeps on the sofa", "where": "where to buy my tea"})
    query = "where is my feline"
    assert (await keys(scripted, query))[0] == "cat"
    found = await scores(scripted, query, mode="vector")
    assert found == {"cat": pytest.approx(0.9659, abs=1e-3), "where": pytest.approx(0, abs=1e-3)}
    assert await keys(scripted, query, mode="text") == []


async def test_scores_of_a_vector_search_may_be_negative_but_not_those_of_others(
    scripted: Store,
) -> None:
    await put(scripted, {"invoice": "invoice INV-2024-0093"})
    query = "where is my feline"
    assert await scores(scripted, query, mode="vector") == {
        "invoice": pytest.approx(-0.17, abs=0.01)
    }
    assert await scores(scripted, query) == {"invoice": 0}


async def test_scores_are_in_0_to_1(store: Store) -> None:
    await put(store, {f"k{n}": "ramen " * n + "tea soup rice" for n in range(8)})
    for query in ("ramen", "tea ramen unheard", "ramen " * 50, "soup rice tea"):
        for mode in ("hybrid", "text"):
            for score in (await scores(store, query, mode=mode, limit=20)).values():
                assert score is not None
                assert 0 <= score <= 1


async def test_words_of_many_kinds_are_found(store: Store) -> None:
    await put(
        store,
        {
            "invoice": "the invoice INV-2024-0093 is overdue",
            "other": "the invoice INV-2023-0017 is paid",
            "code": "class HTTPServer listens on a port",
            "chinese": "我喜欢吃拉面",
            "japanese": "東京でラーメンを食べました",
            "german": "Anna hat die beiden alten Häuser auf dem Hügel gekauft",
            "english": "she runs every morning",
        },
    )
    for query, key in {
        "INV-2024-0093": "invoice",
        "inv 0093": "invoice",
        "HTTPServer": "code",
        "拉面": "chinese",
        "我喜欢什么": "chinese",
        "ラーメン": "japanese",
        "東京": "japanese",
        "Häuser": "german",
        "haus": "german",
        "Welches Haus hat Anna gekauft?": "german",
        "running": "english",
    }.items():
        assert (await keys(store, query, mode="text"))[:1] == [key], query


async def test_text_mode_leaves_out_what_has_no_word(store: Store) -> None:
    await put(store, {"both": "ramen soup", "one": "ramen", "none": "tea"})
    assert await keys(store, "ramen soup", mode="text") == ["both", "one"]


async def test_a_query_of_function_words_is_compared_by_meaning_alone(store: Store) -> None:
    await put(store, {"a": "who is she", "b": "ramen"})
    assert await scores(store, "is she", mode="vector") == await scores(store, "is she")
    assert await keys(store, "is she", mode="text") == []


async def test_a_turn_is_found_by_the_turn_before_it(store: Store) -> None:
    await say(store, "when does the marathon start?", "yes, in May!", "good", "fine", "bye then")
    await put(store, {"elsewhere": "in May, of course"})
    found = await keys(store, "marathon May")
    assert set(found[:2]) == {"t0", "t1"}
    await put(store, {"twice": "in May, in May"})
    assert set((await keys(store, "marathon May"))[:2]) == {"t0", "t1"}


async def test_the_share_of_a_neighbours_word_falls_with_the_distance(store: Store) -> None:
    turns = ["marathon", *(f"filler{n}" for n in range(4))]
    await say(store, *turns)
    parts = {
        item["key"]: item["explanation"]["words"][0]["nearby"]
        for item in await store.search(NOTES, query="marathon", explain=True)
    }
    own = 1 / 1.9
    assert [parts[f"t{n}"] for n in range(1, 5)] == [
        pytest.approx(own * share, abs=1e-6) for share in (0.7, 0.5, 0.1, 0.1)
    ]


async def test_without_a_source_nothing_is_shared(store: Store) -> None:
    await put(store, {"a": "marathon", "b": "filler", "c": "other"})
    shared = await scores(store, "marathon")
    await store.put(NOTES, "d", {"text": "marathon"}, index=False, source={"thread_id": "t"})
    again = await scores(store, "marathon")
    assert {key: again[key] for key in shared} == shared
    assert shared["b"] == pytest.approx(
        0.45 * max(0, (await scores(store, "marathon", mode="vector"))["b"] or 0), abs=1e-6
    )


async def test_threads_of_one_name_in_two_namespaces_are_two(store: Store) -> None:
    await say(store, "marathon", namespace=["notes", "alice"])
    await say(store, "x", "filler", namespace=["notes", "bob"])
    found = await store.search(NOTES, query="marathon", explain=True)
    assert [
        (i["namespace"][1], i["explanation"]["found_by"]) for i in found if i["key"] == "t1"
    ] == [("bob", ["vector"])]


@pytest.mark.slow
async def test_context_by_index_is_context_by_comparing_everything(
    store: Store, settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> None:
    for thread in "abc":
        turns = [f"marathon {thread}" if n % 7 == 3 else f"word{n} {thread}" for n in range(12)]
        await say(store, *turns, thread=thread)
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("ANALYZE")
    await connection.close()
    eager = settings.model_copy(update={"exact_search_passages": 0})
    async with serving(eager, clock, embedder) as indexed:
        for mode in MODES:
            for query in ("marathon", "marathon word4 b"):
                body = {"mode": mode, "limit": 36}
                assert await scores(indexed, query, **body) == await scores(store, query, **body)


@pytest.fixture
async def pinned(store: Store) -> Store:
    await put(store, {"a": "ramen soup", "b": "ramen"})
    await put(store, {"pin": "tea leaves"}, pinned=True)
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
    await put(store, {"a": "ramen soup", "b": "ramen", "c": "tea"})
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
    await put(store, {"relevant": "ramen soup"})
    await put(store, {"important": "tea"}, importance=1)
    await put(store, {"used": "coffee"})
    clock.advance(timedelta(days=30))
    await put(store, {"recent": "bread"})
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
        assert await store.batch({"op": "search", **body}) == [alone.json()]
