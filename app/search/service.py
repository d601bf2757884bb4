"""Searching on behalf of one caller."""

from dataclasses import dataclass
from typing import Self

from asyncpg import Record

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db import Database, Row
from app.embedding_model import EmbeddingModel
from app.providers.embeddings.base import Vector
from app.resources import Resources
from app.search.candidates import (
    Page,
    Scope,
    Target,
    fetch_scored,
    nearest_by_index,
    nearest_exactly,
    nearest_filtered,
    newest,
    share_of_all,
)
from app.search.schemas import DEFAULT_LIMIT, SearchItems
from app.store import repository
from app.store.filters import parse_filter
from app.store.service import as_refreshed
from app.store.writes import Address

_INDEXED_SHARE = 0.02
"""Of all items: a scope and filter that leave less are applied first, and the rest compared.

The index would have to walk past fifty passages for each one it may return, which takes as long
and finds fewer of the nearest (docs/decisions/0006-exact-or-index.md).
"""

_FIRST_REACH = 4
"""Passages asked of the index for each result wanted: items may have several."""

_LAST_REACH = 64
"""Beyond this, few items with very many passages crowd the rest out: compare every one."""


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """A checked search that may run; `query` is None where nothing is compared."""

    scope: Scope
    page: Page
    query: str | None
    refresh_ttl: bool


class SearchService:
    """Finds items."""

    def __init__(
        self, database: Database, model: EmbeddingModel | None, clock: Clock, settings: Settings
    ) -> None:
        self._database = database
        self._model = model
        self._clock = clock
        self._settings = settings

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(resources.database, resources.model, resources.clock, resources.settings)

    async def search(
        self, access: Access, body: SearchItems, *, with_expired: bool = False
    ) -> list[Row]:
        """Return the page of items that a search asks for."""
        prepared = self.prepare(access, body, with_expired=with_expired)
        vectors = await self.embed([prepared])
        return await self.run(access, prepared, vectors[0])

    def prepare(
        self, access: Access, body: SearchItems, *, with_expired: bool = False
    ) -> PreparedSearch:
        """Check a search; raises ForbiddenError and InvalidFilterError."""
        scope = Scope(
            namespaces=access.scope(body.namespace_prefix or [], Verb.READ),
            filter=parse_filter(body.filter) if body.filter else None,
            now=self._clock.now(),
            with_expired=with_expired,
        )
        limit = DEFAULT_LIMIT if body.limit is None else body.limit
        refresh = body.refresh_ttl
        return PreparedSearch(
            scope=scope,
            page=Page(limit, body.offset or 0),
            query=body.query if body.query and body.query.strip() and self._model else None,
            refresh_ttl=self._settings.refresh_on_read if refresh is None else refresh,
        )

    async def embed(self, searches: list[PreparedSearch]) -> list[Vector | None]:
        """Return the vector of each search's query, before any connection is taken."""
        queries = [search.query for search in searches if search.query is not None]
        if not queries or self._model is None:
            return [None] * len(searches)
        vectors = iter(await self._model.embed(queries, urgent=True))
        return [None if search.query is None else next(vectors) for search in searches]

    async def run(self, access: Access, search: PreparedSearch, vector: Vector | None) -> list[Row]:
        """Return a prepared search's page, restarting lifetimes if that is wanted."""
        if search.page.limit == 0:
            return []
        rows = await self._find(access, search, vector)
        mortal = [(row["namespace"], row["key"]) for row in rows if row["ttl"] is not None]
        if not mortal or not search.refresh_ttl:
            return list(rows)
        now = search.scope.now
        async with self._database.connection(access.root) as connection:
            await repository.refresh(connection, mortal, now)
        return [row if row["ttl"] is None else as_refreshed(row, now) for row in rows]

    async def _find(
        self, access: Access, search: PreparedSearch, vector: Vector | None
    ) -> list[Record]:
        scope, page = search.scope, search.page
        async with self._database.connection(access.root) as connection:
            if vector is None or self._model is None:
                return await newest(connection, scope, page)
            target = Target(vector, self._model.id)
            largest = self._settings.exact_search_passages
            rows = await nearest_exactly(connection, scope, target, page, largest=largest)
            if rows is not None:
                return rows
            if await share_of_all(connection, scope) < _INDEXED_SHARE:
                return await nearest_filtered(connection, scope, target, page)
        return await self._by_index(access, search, target)

    async def _by_index(
        self, access: Access, search: PreparedSearch, target: Target
    ) -> list[Record]:
        scope, page = search.scope, search.page
        wanted = page.offset + page.limit
        reach = _FIRST_REACH
        async with self._database.transaction(access.root) as connection:
            while reach <= _LAST_REACH:
                passages = reach * wanted
                hits = await nearest_by_index(connection, scope, target, passages=passages)
                best = _best_of_each_item(hits)
                if len(best) >= wanted:
                    return await fetch_scored(connection, best[page.offset : wanted])
                if len(hits) < passages:
                    break
                reach *= 4
        async with self._database.connection(access.root) as connection:
            return await nearest_filtered(connection, scope, target, page)


def _best_of_each_item(hits: list[tuple[Address, float]]) -> list[tuple[Address, float]]:
    """Keep each item's first, and so best, score; the order stays."""
    best: dict[Address, float] = {}
    for address, score in hits:
        best.setdefault(address, score)
    return list(best.items())
