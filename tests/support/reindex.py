"""A reindex in this process, and checks of its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from typing_extensions import override

from app.config import Settings
from app.indexing.formats import prepare
from app.main import create_app
from app.providers.embedder import Embedder, FakeEmbedder, TextKind, Vector
from app.providers.errors import BadRequestError
from app.resources import open_resources
from app.store.reindex import reindex
from tests.support.app import Store, running

OLD, NEW = 64, 32
NAMESPACE = ["users", "u1"]
OUTDATED = """
SELECT i.key FROM items i
WHERE i.index_paths IS NULL AND i.value ->> 'text' IS DISTINCT FROM (
    SELECT string_agg(p.text, '' ORDER BY p.ordinal) FROM passages p
    WHERE p.namespace = i.namespace AND p.key = i.key
        AND p.index_id = (SELECT id FROM passage_indexes WHERE active)
)
"""
PASSAGES_WITHOUT_TERMS = """
SELECT count(*) FROM passages p WHERE p.length <> (
    SELECT sum(frequency) FROM terms t
    WHERE t.item_id = p.item_id AND t.index_id = p.index_id AND t.ordinal = p.ordinal
)
"""


@asynccontextmanager
async def serving_in_process(settings: Settings, embedder: Embedder) -> AsyncIterator[Store]:
    async with running(create_app(settings, embedder=embedder)) as client:
        yield Store(client)


async def reindexed(
    settings: Settings, embedder: Embedder, *, drop_others: bool = False
) -> list[str]:
    """Reindex, and return the lines that the operator reads."""
    lines: list[str] = []
    async with open_resources(settings, embedder=embedder, choose_index=prepare) as resources:
        await reindex(resources, lines.append, drop_others=drop_others)
    return lines


class Refusing(FakeEmbedder):
    """Takes everything but one text."""

    error: Exception = BadRequestError("too rude")

    @override
    async def embed(self, texts: Any, *, kind: TextKind = "passage") -> list[Vector]:
        if any("word2" in text for text in texts):
            raise self.error
        return await super().embed(texts, kind=kind)


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    """Wait until something holds in the database."""
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - the database would not tell
            await asyncio.sleep(0.02)  # and asking without a pause would take it a processor


async def ask(settings: Settings, question: str) -> Any:
    async with connected(settings) as connection:
        return await connection.fetchval(question)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.database_url)
    try:
        await connection.execute("SELECT set_config('memoryd.root', '', false)")
        yield connection
    finally:
        await connection.close()


async def fill(store: Store, numbers: range) -> None:
    operations = [
        {"op": "put", "namespace": NAMESPACE, "key": f"k{n}", "value": {"text": f"fact word{n}"}}
        for n in numbers
    ]
    await store.batch(*operations)


async def assert_found(store: Store, settings: Settings, numbers: range) -> None:
    async with connected(settings) as connection:
        outdated = await connection.fetch(OUTDATED)
        assert [row["key"] for row in outdated] == []
        assert await connection.fetchval(PASSAGES_WITHOUT_TERMS) == 0
    for mode in ("vector", "text"):
        for n in numbers:
            text = (await store.get(NAMESPACE, f"k{n}"))["value"]["text"]
            found = await store.search(NAMESPACE, query=text, mode=mode, limit=1)
            assert [item["key"] for item in found] == [f"k{n}"]
