"""Searching on behalf of one caller."""

from dataclasses import replace
from typing import Self

from app.auth.access import Access, Verb
from app.clock import Clock
from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES
from app.errors import InvalidRequestError
from app.indexing.passages import PassageIndex
from app.namespaces import only, stored_range
from app.providers.embeddings.base import Vector
from app.resources import Resources
from app.search.hits import SearchPage
from app.search.plan import (
    ListingPlan,
    Scope,
    ScoringQuery,
    SearchPlan,
    SearchQuery,
    plan_listing,
    plan_ranked,
)
from app.search.run import HybridSearch, run_listing
from app.store.filters import parse_filter
from app.store.service import restart_lifetimes
from app.usage_counter import UsageCounter


class SearchService:
    """Finds items: `search`, or its steps `plan`, `embed`, and `run` or `find`."""

    def __init__(
        self,
        database: Database,
        index: PassageIndex,
        clock: Clock,
        usage: UsageCounter,
        *,
        refresh_on_read: bool,
        exact_search_passages: int,
    ) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._usage = usage
        self._refresh_on_read = refresh_on_read
        self._exact_search_passages = exact_search_passages

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Create the service from a process's resources."""
        return cls(
            resources.database,
            resources.index,
            resources.clock,
            resources.usage,
            refresh_on_read=resources.settings.refresh_on_read,
            exact_search_passages=resources.settings.exact_search_passages,
        )

    async def search(
        self, access: Access, query: SearchQuery, *, max_bytes: int = PAGE_BYTES
    ) -> SearchPage:
        """Return a page of the items that match a query."""
        plan = self.plan(access, query)
        vectors = await self.embed([plan])
        return await self.run(access, plan, vectors[0], max_bytes=max_bytes)

    def plan(self, access: Access, query: SearchQuery) -> SearchPlan:
        """Check a query; raises ForbiddenError, InvalidFilterError and InvalidRequestError."""
        prefix = access.authorize(query.namespace, Verb.READ)
        scope = Scope(
            namespaces=stored_range(prefix) if query.with_children else only(prefix),
            filter=parse_filter(query.filter) if query.filter else None,
            now=self._clock.now(),
            with_expired=query.with_expired,
            valid_at=query.valid_at,
        )
        refresh = query.refresh_ttl
        refresh_ttl = self._refresh_on_read if refresh is None else refresh
        if query.text is None or not query.text.strip():
            return plan_listing(query, scope, refresh_ttl=refresh_ttl)
        words = self._index.vocabulary.of_query(query.text)
        embeds = self._index.embedder is not None
        if query.mode == "vector" and not embeds:
            raise InvalidRequestError(
                "mode is vector, but this server embeds nothing (MEMORYD_EMBEDDING=none); "
                "send text or hybrid.",
                field="mode",
            )
        return plan_ranked(query, scope, words, embeds=embeds, refresh_ttl=refresh_ttl)

    async def embed(self, plans: list[SearchPlan]) -> list[Vector | None]:
        """Return the vector of each plan's text; call it before a connection is taken."""
        texts = [None if isinstance(plan, ListingPlan) else plan.embedded_text for plan in plans]
        embedded = await self._index.embed(
            [text for text in texts if text is not None], urgent=True
        )
        vectors = iter(embedded)
        return [None if text is None else next(vectors) for text in texts]

    async def run(
        self,
        access: Access,
        plan: SearchPlan,
        vector: Vector | None,
        *,
        max_bytes: int = PAGE_BYTES,
    ) -> SearchPage:
        """Return a plan's page, count its uses, and restart lifetimes if the plan says so."""
        if plan.page.limit == 0 and not plan.page.with_total:
            return SearchPage([])
        async with self._database.connection(access.root) as connection:
            page = await self.find(connection, plan, vector, max_bytes=max_bytes)
        self._usage.count(hit.item for hit in page.hits)
        return await self._refresh(access, plan, page)

    async def find(
        self,
        connection: Connection,
        plan: SearchPlan,
        vector: Vector | None,
        *,
        max_bytes: int = PAGE_BYTES,
    ) -> SearchPage:
        """Return a plan's page; it counts as no use and restarts no lifetime."""
        if isinstance(plan, ListingPlan):
            return await run_listing(connection, plan, max_bytes)
        with_uses = plan.explain or plan.weights.strength > 0
        query = ScoringQuery(self._index.id, vector, plan.words, with_uses=with_uses)
        search = HybridSearch(connection, plan, query)
        return await search.run(largest=self._exact_search_passages, max_bytes=max_bytes)

    async def _refresh(self, access: Access, plan: SearchPlan, page: SearchPage) -> SearchPage:
        items = [hit.item for hit in page.hits]
        if not plan.page.refresh_ttl or all(item.ttl is None for item in items):
            return page
        async with self._database.connection(access.root) as connection:
            items = await restart_lifetimes(self._database, connection, items, plan.scope.now)
        pairs = zip(page.hits, items, strict=True)
        return replace(page, hits=[replace(hit, item=item) for hit, item in pairs])
