"""Searching on behalf of one caller."""

from dataclasses import replace
from typing import Self

from app.auth.access import Access, Verb
from app.clock import Clock
from app.config import Settings
from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES
from app.errors import InvalidRequestError
from app.indexing.passage_index import PassageIndex
from app.namespaces import only, stored_range
from app.providers.embeddings.base import Vector
from app.resources import Resources
from app.search.found import Found, Result
from app.search.gathering import Asked
from app.search.listing import list_page
from app.search.prepared import Listing, PreparedSearch, listing, ranked
from app.search.ranked import RankedRun
from app.search.schemas import SearchItems
from app.search.scope import Scope
from app.store.filters import parse_filter
from app.store.lifetimes import restart_lifetimes
from app.store.service import as_refreshed
from app.usage_counter import Usage


class SearchService:
    """Finds items."""

    def __init__(
        self,
        database: Database,
        index: PassageIndex,
        clock: Clock,
        usage: Usage,
        settings: Settings,
    ) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._usage = usage
        self._settings = settings

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            resources.index,
            resources.clock,
            resources.usage,
            resources.settings,
        )

    async def search(
        self,
        access: Access,
        body: SearchItems,
        *,
        with_expired: bool = False,
        max_bytes: int = PAGE_BYTES,
    ) -> Found:
        """Return the page of items that a search asks for."""
        prepared = self.prepare(access, body, with_expired=with_expired)
        vectors = await self.embed([prepared])
        return await self.run(access, prepared, vectors[0], max_bytes=max_bytes)

    def prepare(
        self,
        access: Access,
        body: SearchItems,
        *,
        with_expired: bool = False,
        with_children: bool = True,
    ) -> PreparedSearch:
        """Check a search; raises ForbiddenError, InvalidFilterError and InvalidRequestError."""
        prefix = access.locate(body.namespace_prefix or [], Verb.READ)
        scope = Scope(
            namespaces=stored_range(prefix) if with_children else only(prefix),
            filter=parse_filter(body.filter) if body.filter else None,
            now=self._clock.now(),
            with_expired=with_expired,
            valid_at=body.valid_at,
        )
        refresh = body.refresh_ttl
        refresh_ttl = self._settings.refresh_on_read if refresh is None else refresh
        if body.query is None or not body.query.strip():
            return listing(body, scope, refresh_ttl=refresh_ttl)
        words = self._index.vocabulary.of_query(body.query)
        embeds = self._index.embedder is not None
        if body.mode == "vector" and not embeds:
            raise InvalidRequestError(
                "mode is vector, but this server embeds nothing (MEMORYD_EMBEDDING=none); "
                "send text or hybrid.",
                field="mode",
            )
        return ranked(body, scope, words, embeds=embeds, refresh_ttl=refresh_ttl)

    async def embed(self, searches: list[PreparedSearch]) -> list[Vector | None]:
        """Return the vector of each search's query, before any connection is taken."""
        queries = [None if isinstance(search, Listing) else search.query for search in searches]
        texts = [query for query in queries if query is not None]
        vectors = iter(await self._index.embed(texts, urgent=True))
        return [None if query is None else next(vectors) for query in queries]

    async def run(
        self,
        access: Access,
        search: PreparedSearch,
        vector: Vector | None,
        *,
        max_bytes: int = PAGE_BYTES,
    ) -> Found:
        """Return a prepared search's page, restarting lifetimes if that is wanted."""
        if search.page.limit == 0 and not search.page.with_total:
            return Found([])
        async with self._database.connection(access.root) as connection:
            found = await self.find(connection, search, vector, max_bytes=max_bytes)
        self._usage.note(result.row for result in found.results)
        return await self._refreshed(access, search, found)

    async def find(
        self,
        connection: Connection,
        search: PreparedSearch,
        vector: Vector | None,
        *,
        max_bytes: int = PAGE_BYTES,
    ) -> Found:
        """Return a prepared search's page; it counts as no use and restarts no lifetime."""
        if isinstance(search, Listing):
            return await list_page(connection, search, max_bytes)
        with_uses = search.explain or search.weights.strength > 0
        asked = Asked(self._index.id, vector, search.words, with_uses=with_uses)
        run = RankedRun(connection, search, asked)
        return await run.find(largest=self._settings.exact_search_passages, max_bytes=max_bytes)

    async def _refreshed(self, access: Access, search: PreparedSearch, found: Found) -> Found:
        rows = [result.row for result in found.results]
        mortal = [(row["namespace"], row["key"]) for row in rows if row["ttl"] is not None]
        if not mortal or not search.page.refresh_ttl:
            return found
        now = search.scope.now
        async with self._database.connection(access.root) as connection:
            if not await restart_lifetimes(self._database, connection, mortal, now):
                return found
        results = [
            result
            if result.row["ttl"] is None
            else Result(as_refreshed(result.row, now), result.score, result.explanation)
            for result in found.results
        ]
        return replace(found, results=results)
