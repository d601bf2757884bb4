"""A million items in minutes: stored by COPY, as a backup is restored."""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from pgvector import HalfVector

from app.db import migrations
from app.db.database import ALL_ROOTS, Connection, Database
from app.indexing.formats import register
from app.indexing.terms import Vocabulary
from app.namespaces import to_stored
from app.providers.embedder import FakeEmbedder
from benchmarks.data import FILTER_BUCKETS, Item, TextSource
from benchmarks.vectors import DIMENSIONS, FAKE, embedding

PREFIX = ("scale",)
LARGE = (*PREFIX, "large")
MIDDLE = (*PREFIX, "middle")
SMALL = (*PREFIX, "small")
COMMON = (*PREFIX, "common")
SIZES = {LARGE: 20_000, MIDDLE: 5_000, SMALL: 100, COMMON: 1_000}
SMALL_SHARE = 0.1
LEAST = 50_000

BATCH = 5_000
PROCESSES = 2
TABLES = ("namespaces", "items", "item_versions", "passages", "terms")

BYTES_A_VECTOR = 2_000
"""Memory per vector while the graph is built: 768 for the vector, 512 for links, overhead."""

Vectors = npt.NDArray[np.float16]
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The namespace of each item, by number; items stored one after another have different ones."""

    namespaces: list[Labels]
    namespace_of: npt.NDArray[np.int64]

    def below(self, prefix: Labels) -> list[Labels]:
        """Return the namespaces under a prefix."""
        return [labels for labels in self.namespaces if labels[: len(prefix)] == prefix]

    def items_in(self, namespace: Labels) -> npt.NDArray[np.int64]:
        """Return the numbers of a namespace's items."""
        return np.flatnonzero(self.namespace_of == self.namespaces.index(namespace))


@lru_cache(maxsize=1)
def layout(count: int) -> Layout:
    """Place `count` items: one large namespace, a middle one, a tenth in small ones, the rest."""
    sizes: dict[Labels, int] = {LARGE: SIZES[LARGE], MIDDLE: SIZES[MIDDLE]}
    small = round(count * SMALL_SHARE)
    for prefix, items in ((SMALL, small), (COMMON, count - small - sum(sizes.values()))):
        for n, start in enumerate(range(0, items, SIZES[prefix])):
            sizes[(*prefix, f"n{n:05d}")] = min(SIZES[prefix], items - start)
    in_order = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    return Layout(list(sizes), np.random.default_rng(8).permutation(in_order))


def item(namespace: Labels, number: int, text: str, batch: str = "k") -> Item:
    """Return an item; its key contains its number."""
    value = {"text": text, "number": number, "bucket": number % FILTER_BUCKETS}
    return Item(namespace, f"{batch}{number:07d}", value)


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Where items are stored: a database, an index's number in it, and a file of all vectors."""

    url: str
    index_id: int
    count: int
    vectors: Path

    def run(self, start: int) -> None:
        """Make and store one batch; called in a process of its own."""
        asyncio.run(self._store(range(start, min(start + BATCH, self.count))))

    async def _store(self, numbers: range) -> None:
        placed = layout(self.count)
        texts = TextSource(seed=1_000 + numbers.start).texts(len(numbers))
        vectors = (await embedding(FAKE)(texts)).astype(np.float16)
        np.load(self.vectors, mmap_mode="r+")[numbers.start : numbers.stop] = vectors
        items = [
            item(placed.namespaces[placed.namespace_of[number]], number, text)
            for number, text in zip(numbers, texts, strict=True)
        ]
        database = await Database.open(self.url, pool_size=1)
        try:
            async with database.transaction(ALL_ROOTS) as connection:
                for table, rows in _rows(items, vectors, self.index_id).items():
                    await connection.copy_records_to_table(
                        table, columns=list(rows[0]), records=[tuple(row.values()) for row in rows]
                    )
        finally:
            await database.close()


def _rows(
    items: Sequence[Item], vectors: Vectors, index_id: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that a put of each item would write."""
    vocabulary, now = Vocabulary(), datetime.now(UTC)
    rows: dict[str, list[dict[str, Any]]] = {
        "items": [],
        "item_versions": [],
        "passages": [],
        "terms": [],
    }
    for of_item, vector in zip(items, vectors, strict=True):
        item_id, text = of_item.value["number"] + 1, of_item.value["text"]
        terms = vocabulary.of_passage(text)
        place = {"namespace": to_stored(of_item.namespace), "key": of_item.key}
        passage = {"item_id": item_id, "index_id": index_id, "ordinal": 0}
        passage["length"] = sum(terms.values())
        state = {
            "version": 1,
            "value": orjson.dumps(of_item.value).decode(),
            "index_paths": '["text"]',
            "pinned": False,
        }
        rows["items"].append(place | state | {"id": item_id, "created_at": now, "updated_at": now})
        rows["item_versions"].append(
            place | state | {"action": "put", "actor": "benchmark", "recorded_at": now}
        )
        rows["passages"].append(
            place | passage | {"path": "text", "text": text, "embedding": HalfVector(vector)}
        )
        rows["terms"].extend(
            {"namespace": place["namespace"], **passage, "term": term, "frequency": frequency}
            for term, frequency in terms.items()
        )
    return rows


async def fill(url: str, vectors: Path, count: int) -> dict[str, float]:
    """Migrate a database, register the server's index and load; return each step's seconds.

    Every vector is also written to the file `vectors`, as an array in order of the items.
    """
    await asyncio.to_thread(migrations.upgrade, url)
    np.lib.format.open_memmap(vectors, "w+", np.float16, (count, DIMENSIONS)).flush()
    database = await Database.open(url, pool_size=1)
    try:
        index = await register(database, FakeEmbedder(DIMENSIONS), Vocabulary())
        async with database.connection(ALL_ROOTS) as connection:
            return await _load(connection, LoadTarget(url, index.id, count, vectors))
    finally:
        await database.close()


async def _load(connection: Connection, loading: LoadTarget) -> dict[str, float]:
    """Store all items, then build the secondary indexes; return the seconds of each step."""
    await connection.execute("SET statement_timeout = 0")
    definitions = await _drop_indexes(connection)
    for table in TABLES:  # COPY refuses a table whose row-level security binds its owner too
        await connection.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    seconds = {"rows": await _timed(_copy_all(connection, loading))}
    for table in TABLES:
        await connection.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    memory = loading.count * BYTES_A_VECTOR >> 10
    await connection.execute(f"SET maintenance_work_mem = {max(memory, 65_536)}")
    await connection.execute(f"SET max_parallel_maintenance_workers = {PROCESSES - 1}")
    connection.add_log_listener(_print_notice)
    for name, definition in definitions.items():
        seconds[name] = await _timed(connection.execute(definition))
    connection.remove_log_listener(_print_notice)
    return seconds


def _print_notice(_: object, message: object) -> None:
    """Print PostgreSQL's notices, such as that a graph no longer fits into memory."""
    print(message, flush=True)


async def _drop_indexes(connection: Connection) -> dict[str, str]:
    """Drop the secondary indexes of the loaded tables; return the statements that build them."""
    rows = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
        "AND tablename IN ('passages', 'terms') AND indexname NOT LIKE '%_pkey'"
    )
    for row in rows:
        await connection.execute(f"DROP INDEX {row['indexname']}")
    return {row["indexname"]: row["indexdef"] for row in rows}


async def _copy_all(connection: Connection, loading: LoadTarget) -> None:
    namespaces = [(to_stored(labels),) for labels in layout(loading.count).namespaces]
    await connection.copy_records_to_table("namespaces", columns=["namespace"], records=namespaces)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn) as pool:
        loop = asyncio.get_running_loop()
        starts = range(0, loading.count, BATCH)
        await asyncio.gather(*(loop.run_in_executor(pool, loading.run, start) for start in starts))
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('items', 'id'), $1)", loading.count
    )


async def _timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
