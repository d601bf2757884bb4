"""Every statement a user waits on has the plan it was written for, at a realistic size."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import cast

import asyncpg
import numpy as np
import pytest

from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES
from app.http.headers import UNCONDITIONAL
from app.indexing.formats import register
from app.indexing.passages import Passage
from app.indexing.terms import QueryWord, Vocabulary
from app.json_values import JsonText
from app.namespaces import stored_range, to_root, to_stored
from app.providers.embedder import FakeEmbedder, Vector
from app.search.candidates import estimate_scope
from app.search.context_repository import fetch_context
from app.search.plan import Scope, ScoringQuery, SearchQuery, plan_listing
from app.search.repository import (
    fetch_candidates,
    fetch_items,
    fetch_passage_texts,
    fetch_scope,
    find_nearest,
    find_neighbors,
    find_pinned,
)
from app.search.service import run_listing
from app.store import history_repository, repository, source_repository
from app.store.filters import parse_filter
from app.store.namespace_repository import NamespaceQuery, list_namespaces
from app.store.repository import ItemPassages
from app.store.types import NO_METADATA, Address, PreparedPut
from tests.support.plans import ExplainingConnection

pytestmark = pytest.mark.slow

NAMESPACES, ITEMS_EACH, DIMENSIONS = 400, 100, 16
ITEMS = NAMESPACES * ITEMS_EACH
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE = to_stored(["users", "u0200"])
ADDRESS = Address(ONE, "k001")
LARGEST = 10_000
FILL_SECONDS = 600
USAGE = "item_usage_pkey"


@pytest.fixture(scope="module")
async def filled(filled_url: str) -> AsyncIterator[Database]:
    """40,000 items with a passage of six terms each, in 400 namespaces and threads of ten.

    The terms are one that all have, one of a namespace's hundredth, and rarer ones.
    """
    database = await Database.open(filled_url, pool_size=2)
    await register(database, FakeEmbedder(DIMENSIONS), Vocabulary())
    async with database.connection("") as connection:
        await _fill(connection)
    yield database
    await database.close()


async def _fill(connection: Connection) -> None:
    execute = partial(connection.execute, timeout=FILL_SECONDS)
    await execute("SET statement_timeout = 0")
    index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'passages_embedding_1'"
    definition = await connection.fetchval(index)
    await execute("DROP INDEX passages_embedding_1")
    await execute(
        "INSERT INTO namespaces SELECT format(E'users\\x1fu%s\\x1f', to_char(n, 'FM0000')) "
        "FROM generate_series(1, $1::int) AS n",
        NAMESPACES,
    )
    await execute(
        "INSERT INTO items (namespace, key, value, version, source, expires_at, created_at, "
        "updated_at) "
        "SELECT namespace, 'k' || to_char(k, 'FM000'), jsonb_build_object('n', k), 1, "
        "jsonb_build_object('thread_id', k / 10, 'position', k % 10), "
        "CASE WHEN k = 1 THEN $2::timestamptz + interval '1 day' END, $2, $2 "
        "FROM namespaces, generate_series(1, $1::int) AS k ORDER BY random()",
        ITEMS_EACH,
        NOW,
    )
    await execute(
        "INSERT INTO item_versions (namespace, key, version, action, value, actor, recorded_at) "
        "SELECT namespace, key, 1, 'put', value, 'x', created_at FROM items"
    )
    await execute(
        "INSERT INTO passages "
        "(namespace, key, index_id, ordinal, item_id, length, path, text, embedding) "
        "SELECT namespace, key, 1, 0, id, 6, '$', key, "
        f"(SELECT array_agg(random() - 0.5) FROM generate_series(1, {DIMENSIONS}) "
        "WHERE namespace IS NOT NULL)::real[]::vector::halfvec FROM items"
    )
    await execute(
        "INSERT INTO terms (namespace, term, item_id, index_id, ordinal, frequency, length) "
        "SELECT namespace, term, id, 1, 0, 1, 6 FROM items, LATERAL (VALUES ('all'), (key), "
        "('t' || id % 10), ('h' || id % 100), ('r' || id % 2000), ('one' || id)) AS t (term)"
    )
    await execute("INSERT INTO item_usage SELECT namespace, id, 1, created_at FROM items")
    await execute(definition)
    await execute("ANALYZE")
    await execute("RESET statement_timeout")


@asynccontextmanager
async def explaining(database: Database) -> AsyncIterator[ExplainingConnection]:
    """Yield a connection confined as a tenant's would be; what it writes is undone."""
    async with database.connection(to_stored(["users"])) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield ExplainingConnection(connection)
        finally:
            await transaction.rollback()


def plain(connection: ExplainingConnection) -> Connection:
    return cast(Connection, connection)


async def test_items_and_versions_are_reached_by_their_keys(filled: Database) -> None:
    async with explaining(filled) as connection:
        await repository.find(plain(connection), ADDRESS, NOW)
        await repository.find_many(plain(connection), [ADDRESS, Address(ONE, "k002")], NOW)
        await repository.refresh(plain(connection), [ADDRESS], NOW)
        await repository.lock(plain(connection), [ADDRESS], NOW)
        await source_repository.extend_said(plain(connection), {(ADDRESS, 1): (NOW, NOW)})
        await history_repository.find_versions(plain(connection), ADDRESS, before=None, limit=100)
        await history_repository.find_version(plain(connection), ADDRESS, 1)
        await history_repository.find_as_of(plain(connection), ADDRESS, NOW)
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey", "item_versions_pkey"}


async def test_writes_touch_only_what_they_change(filled: Database) -> None:
    passages = [Passage.of("$", "a b", {"a": 1, "b": 1})]
    put = PreparedPut(
        address=ADDRESS,
        value=JsonText('{"n": 2}'),
        metadata=NO_METADATA,
        index_paths=None,
        ttl=None,
        action="put",
        precondition=UNCONDITIONAL,
        passages=passages,
    )
    async with explaining(filled) as connection:
        written = await repository.upsert(plain(connection), [put], actor="x", now=NOW)
        item_passages = ItemPassages(ADDRESS, written[ADDRESS].item_id, passages, [vector()])
        await repository.replace_passages(plain(connection), [item_passages], 1)
        await repository.delete(plain(connection), [ADDRESS], actor="x", now=NOW)
    assert connection.scanned_tables == set()


async def test_a_small_scope_is_read_by_its_range(filled: Database) -> None:
    async with explaining(filled) as connection:
        found = await fetch_scope(
            plain(connection), scope(["users", "u0200"]), asked("all", "k007"), largest=LARGEST
        )
    assert found is not None
    candidates, statistics = found
    assert (len(candidates.items), len(candidates.passages)) == (ITEMS_EACH, ITEMS_EACH)
    assert statistics.passages_with.tolist() == [ITEMS_EACH, 1]
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey", "passages_pkey", "terms_term_index", USAGE}


async def test_a_large_scope_is_noticed_without_reading_it(filled: Database) -> None:
    async with explaining(filled) as connection:
        found = await fetch_scope(
            plain(connection), scope(["users"]), asked("all"), largest=LARGEST
        )
    assert found is None


async def test_a_large_scope_is_surveyed_by_the_terms_index(filled: Database) -> None:
    async with explaining(filled) as connection:
        surveyed = await estimate_scope(
            plain(connection), scope(["users"]), asked("all", "t3", "r8")
        )
    assert surveyed.share == pytest.approx(1, abs=0.2)
    assert surveyed.statistics.passages == pytest.approx(ITEMS, rel=0.2)
    assert surveyed.statistics.passages_with.tolist() == [ITEMS, ITEMS / 10, ITEMS / 2_000]
    assert set(surveyed.hits["word"]) == {1, 2}, "the word that all have leads nowhere"
    assert connection.scanned_tables == set()
    assert connection.indexes == {"terms_term_index", "pg_class_oid_index"}


@pytest.mark.parametrize("condition", [None, {"n": {"$lte": 25}}, {"n": 7}])
async def test_a_large_scope_is_searched_by_the_vector_index(
    filled: Database, condition: dict[str, object] | None
) -> None:
    async with explaining(filled) as connection:
        hits = await find_nearest(
            plain(connection), scope(["users"], condition), asked(), passages=40
        )
    assert len(hits) == 40
    assert "passages_embedding_1" in connection.indexes
    assert connection.scanned_tables == set()


async def test_chosen_items_are_read_by_their_keys(filled: Database) -> None:
    async with explaining(filled) as connection:
        everything = scope(["users"])
        ids = await find_nearest(plain(connection), everything, asked(), passages=100)
        beside = await find_neighbors(plain(connection), ids)
        assert await find_pinned(plain(connection), everything) == []
        candidates = await fetch_candidates(
            plain(connection), everything, asked("all", "h7"), beside
        )
        page = await fetch_items(plain(connection), everything, ids[:10], PAGE_BYTES)
        near = await fetch_context(plain(connection), everything, ids[:10], 2, PAGE_BYTES)
        assert 3 <= max(map(len, near.values())) <= 4
        texts = await fetch_passage_texts(
            plain(connection), 1, [(item_id, 0) for item_id in ids[:10]]
        )
    assert len(set(ids)) < len(beside) == len(candidates.items) == len(candidates.passages)
    assert (len(page.items), len(texts)) == (10, 10)
    assert connection.scanned_tables == set()
    assert {
        "items_id_index",
        "items_pinned_index",
        "items_thread_index",
        "terms_item_id_index",
    } < connection.indexes


async def test_a_filter_that_keeps_little_is_applied_before_anything_is_compared(
    filled: Database,
) -> None:
    narrow = scope(["users"], {"$meta": {"key": "k007"}, "n": 7})
    async with explaining(filled) as connection:
        surveyed = await estimate_scope(plain(connection), narrow, asked("all"))
        candidates = await fetch_candidates(plain(connection), narrow, asked("all"), None)
    assert surveyed.share == pytest.approx(1 / ITEMS_EACH, abs=0.02)
    assert len(candidates.items) == len(candidates.passages) == len(candidates.hits) == NAMESPACES
    assert connection.scanned_tables <= {"items"}
    assert {"passages_pkey", "terms_item_id_index"} <= connection.indexes


async def test_a_listing_reads_its_range(filled: Database) -> None:
    search = plan_listing(SearchQuery(), scope(["users", "u0200"]), refresh_ttl=False)
    async with explaining(filled) as connection:
        found = await run_listing(plain(connection), search, PAGE_BYTES)
    assert len(found.hits) == 10
    assert connection.scanned_tables == set()
    assert connection.indexes == {"items_pkey"}


async def test_namespaces_are_listed_without_scanning_items(filled: Database) -> None:
    root = to_root(["users"])
    async with explaining(filled) as connection:
        found, _ = await list_namespaces(plain(connection), root, NamespaceQuery(), NOW, PAGE_BYTES)
    assert len(found) == 100
    assert "items" not in connection.scanned_tables
    assert "items_pkey" in connection.indexes


async def test_nobody_sees_another_root_even_in_plain_sql(filled: Database) -> None:
    async with filled.connection(to_stored(["users", "u0001"])) as connection:
        assert await connection.fetchval("SELECT count(*) FROM items") == ITEMS_EACH
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO namespaces VALUES ($1)", ONE)


def scope(labels: list[str], condition: dict[str, object] | None = None) -> Scope:
    parsed = parse_filter(condition) if condition else None
    return Scope(stored_range(to_stored(labels)), parsed, NOW, with_expired=False)


def asked(*terms: str) -> ScoringQuery:
    return ScoringQuery(1, vector(), [QueryWord(term, (term,)) for term in terms], with_uses=True)


def vector() -> Vector:
    return np.full(DIMENSIONS, DIMENSIONS**-0.5, dtype=np.float32)
