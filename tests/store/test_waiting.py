"""Items whose text cannot be embedded: stored with their words, and embedded later."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from typing_extensions import override

from app.clock import FrozenClock
from app.config import Settings
from app.db.database import ALL_ROOTS
from app.main import create_app
from app.providers.embedder import BatchingEmbedder, FakeEmbedder, TextKind, Vector
from app.providers.errors import TextFailedError, UnavailableError
from app.resources import Resources
from app.store import backlog_repository
from app.store.backlog import EmbeddingBacklog
from app.store.types import Address
from tests.support.app import Store, running_with_resources
from tests.support.extraction import Memories
from tests.support.plans import ExplainingConnection
from tests.support.scripted_model import calls

TEAM = ["team"]
GAUGE = "memoryd_items_waiting_for_embedding"


class FragileEmbedder(FakeEmbedder):
    """Fails on texts with `toxic`, and on all while it is down."""

    def __init__(self) -> None:
        super().__init__()
        self.toxic = "asbestos"
        self.down = False
        self.retry_after: float | None = None

    @override
    async def embed(self, texts: Sequence[str], *, kind: TextKind = "passage") -> list[Vector]:
        vectors = await super().embed(texts, kind=kind)
        if self.down:
            raise UnavailableError("connection refused", retry_after=self.retry_after)
        if any(self.toxic in text for text in texts):
            raise TextFailedError("NaN")
        return vectors


@pytest.fixture
def embedder() -> FragileEmbedder:
    return FragileEmbedder()


@pytest.fixture
async def served(
    settings: Settings, embedder: FragileEmbedder, clock: FrozenClock
) -> AsyncIterator[tuple[Store, Resources]]:
    app = create_app(settings, embedder=embedder, clock=clock)
    async with running_with_resources(app) as (client, resources):
        yield Store(client), resources


@pytest.fixture
def waiting_store(served: tuple[Store, Resources]) -> Store:
    return served[0]


async def work(resources: Resources, clock: FrozenClock, seconds: float = 10) -> None:
    """Let time pass, and do a new worker's work on the backlog."""
    clock.advance(timedelta(seconds=seconds))
    await EmbeddingBacklog.build(resources).run()


async def gauge(client: httpx2.AsyncClient) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(GAUGE)))


def put(key: str, text: str, **more: Any) -> dict[str, Any]:
    return {"op": "put", "namespace": TEAM, "key": key, "value": {"text": text}, **more}


async def test_a_text_that_fails_is_found_by_words_until_it_is_embedded(
    served: tuple[Store, Resources], embedder: FragileEmbedder, clock: FrozenClock
) -> None:
    store, resources = served
    texts = {f"k{number}": f"fact {number}" for number in range(12)} | {"bad": "asbestos roof"}
    await asyncio.gather(*(store.put(TEAM, key, {"text": text}) for key, text in texts.items()))
    waits = {key: (await store.get(TEAM, key)).get("embedded") for key in texts}
    assert waits == dict.fromkeys(texts) | {"bad": False}
    [best] = await store.search(TEAM, query="roof", limit=1)
    assert (best["key"], best["embedded"]) == ("bad", False)
    [listed] = [item for item in await store.search(TEAM, limit=20) if item["key"] == "bad"]
    assert listed["embedded"] is False
    by_meaning = await store.search(TEAM, query="fact 3", mode="vector", min_score=0.01)
    assert "bad" not in [item["key"] for item in by_meaning]
    assert await gauge(store.client) == 1
    ready = (await store.client.get("/readyz")).json()["embeddings"]
    assert ready["waiting"] == 1
    assert "memoryd worker" in ready["warning"]
    shown = await store.client.post(
        "/v1/tools/search_memory", json={"namespace": TEAM, "arguments": {"query": "roof"}}
    )
    assert json.loads(shown.json()["content"])[0]["embedded"] is False
    before = clock.now().isoformat()
    await work(resources, clock)
    assert await gauge(store.client) == 1
    embedder.toxic = "nothing"
    await work(resources, clock, seconds=120)
    assert await gauge(store.client) == 0
    item = await store.get(TEAM, "bad")
    assert ("embedded" in item, item["version"], item["updated_at"]) == (False, 1, before)
    [best] = await store.search(TEAM, query="asbestos roof", mode="vector", limit=1)
    assert best["key"] == "bad"
    assert best["score"] > 0.5


async def test_an_item_that_requires_its_embedding_is_refused_alone(waiting_store: Store) -> None:
    store = waiting_store
    body: dict[str, Any] = {"require_embedding": True}
    refused = await store.put(TEAM, "bad", {"text": "asbestos"}, status=503, **body)
    assert refused.json()["code"] == "embedding_failed"
    operations = [
        put("a", "first", **body),
        put("b", "asbestos", **body),
        put("c", "more asbestos"),
        {"op": "search", "namespace_prefix": TEAM, "query": "asbestos"},
        {"op": "search", "namespace_prefix": TEAM, "query": "harmless"},
    ]
    response = await store.call(
        "POST", "/v1/store/batch", status=503, json={"operations": operations}
    )
    assert response.json()["code"] == "embedding_failed"
    assert await store.search(TEAM) == []
    results = await store.batch(*operations, atomic=False)
    codes = [result.get("problem", {}).get("code") for result in results]
    assert codes == [None, "embedding_failed", None, "embedding_failed", None]
    assert {item["key"] for item in await store.search(TEAM)} == {"a", "c"}
    await store.batch(put("a", "first", **body), put("d", "asbestos tiles"))
    assert (await store.get(TEAM, "d"))["embedded"] is False


async def test_puts_go_on_while_the_server_is_down_and_all_is_embedded_after(
    served: tuple[Store, Resources], embedder: FragileEmbedder, clock: FrozenClock
) -> None:
    store, resources = served
    await store.put(TEAM, "same", {"text": "kept text"})
    await store.put(TEAM, "changed", {"text": "earlier text"})
    embedder.down = True
    await store.batch(*(put(f"k{number}", f"fact {number}") for number in range(70)))
    await store.put(TEAM, "changed", {"text": "later text"})
    patched = await store.call(
        "PATCH",
        "/v1/store/items",
        status=200,
        json={"namespace": TEAM, "key": "changed", "value": {"n": 1}},
    )
    assert patched.json()["embedded"] is False
    history = [one.get("embedded") for one in await store.versions(TEAM, "changed")]
    assert history == [False, None, None], "only the present state waits"
    assert await gauge(store.client) == 71
    embedder.calls.clear()
    backlog = EmbeddingBacklog.build(resources)
    clock.advance(timedelta(seconds=10))
    await backlog.run()
    asked = len(embedder.calls)
    await backlog.run()
    assert len(embedder.calls) == asked, "the server was asked again at once"
    embedder.down = False
    await store.put(TEAM, "k5", {"text": "fact 5"})
    assert "embedded" not in await store.get(TEAM, "k5")
    await work(resources, clock, seconds=0)
    assert await gauge(store.client) == 0
    for key, text in (("k5", "fact 5"), ("k69", "fact 69"), ("changed", "later text")):
        found = await store.search(TEAM, query=text, mode="vector", limit=3)
        assert key in [item["key"] for item in found]


async def test_an_embedding_server_is_not_asked_sooner_than_it_wants(
    served: tuple[Store, Resources],
    embedder: FragileEmbedder,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, resources = served
    monkeypatch.setattr("app.store.backlog._SHORTEST_PAUSE", 0.0)
    embedder.down, embedder.retry_after = True, 0.3
    await store.put(TEAM, "k", {"text": "a fact"})
    refused = await store.call(
        "PUT",
        "/v1/store/items",
        status=503,
        json={"namespace": TEAM, "key": "l", "value": {"t": "x"}, "require_embedding": True},
    )
    assert refused.headers["retry-after"] == "1"
    backlog = EmbeddingBacklog.build(resources)
    clock.advance(timedelta(seconds=10))
    embedder.calls.clear()
    await backlog.run()
    asked = len(embedder.calls)
    await backlog.run()
    assert len(embedder.calls) == asked > 0
    await asyncio.sleep(0.3)
    embedder.down = False
    await backlog.run()
    assert await gauge(store.client) == 0


async def test_a_toxic_text_is_tried_ever_more_rarely(
    served: tuple[Store, Resources], embedder: FragileEmbedder, clock: FrozenClock
) -> None:
    store, resources = served
    await store.put(TEAM, "bad", {"text": "asbestos"})
    embedder.calls.clear()
    for _ in range(24 * 60):
        clock.advance(timedelta(minutes=1))
        await EmbeddingBacklog.build(resources).run()
    assert 5 < len(embedder.calls) < 20


async def test_an_extraction_stores_all_memories_but_one_without_a_vector(
    memories: Memories, embedder: FragileEmbedder
) -> None:
    facts = ["Ana has a boat.", "The roof has asbestos.", "Ana plays the oboe."]
    contents = [{"content": {"content": fact}, "importance": 0.5} for fact in facts]
    memories.model.script.append(calls(*(("insert_memory", one) for one in contents)))
    assert (await memories.extract())["counts"]["inserted"] == 3
    rows = await memories.rows("SELECT value, embed_after FROM items")
    assert [row["embed_after"] is None for row in rows if "asbestos" not in row["value"]] == [
        True,
        True,
    ]
    assert sum(row["embed_after"] is not None for row in rows) == 1


async def test_waiting_items_are_found_and_counted_by_their_index(
    served: tuple[Store, Resources], clock: FrozenClock
) -> None:
    store, resources = served
    await store.batch(*(put(f"k{number}", f"fact {number}") for number in range(500)))
    await store.put(TEAM, "bad", {"text": "asbestos"})
    index_id, now = resources.index.id, clock.now() + timedelta(minutes=1)
    async with resources.database.connection(ALL_ROOTS) as plain:
        await plain.execute("ANALYZE items, passages")
        connection: Any = ExplainingConnection(plain)
        assert await backlog_repository.count_waiting(connection) == 1
        [claimed] = await backlog_repository.claim(connection, index_id, 10, now)
        assert claimed == Address(claimed.namespace, "bad")
        [lacking] = await backlog_repository.find_lacking(connection, [claimed], index_id, 10)
        vector = (await FakeEmbedder().embed([lacking.text]))[0]
        await backlog_repository.add_vectors(connection, [(lacking, vector)], index_id)
        await backlog_repository.settle(connection, [claimed], index_id, now)
        assert await backlog_repository.count_waiting(connection) == 0
    assert connection.scanned_tables <= {"passage_indexes"}


async def test_only_a_worker_of_the_active_index_claims_items(
    served: tuple[Store, Resources], clock: FrozenClock
) -> None:
    store, resources = served
    await store.put(TEAM, "bad", {"text": "asbestos"})
    other = replace(resources, index=replace(resources.index, id=99))
    await work(other, clock)
    async with resources.database.connection(ALL_ROOTS) as connection:
        now = clock.now()
        assert await backlog_repository.claim(connection, resources.index.id, 9, now)
        assert not await backlog_repository.claim(connection, resources.index.id, 9, now)


async def test_long_texts_are_not_embedded_twice_after_a_failure() -> None:
    inner = FragileEmbedder()
    embedder = BatchingEmbedder(inner)
    long = "word " * 1_000
    with pytest.raises(TextFailedError):
        await embedder.embed([long, "asbestos"])
    inner.calls.clear()
    inner.toxic = "nothing"
    await embedder.embed([long, "asbestos"])
    assert inner.calls == [["asbestos"]]
