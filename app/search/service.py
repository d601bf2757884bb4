"""Searching on behalf of one caller: a ranking by score, or a listing in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from app.auth.access import Access, Verb
from app.clock import Clock
from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES, write_cursor
from app.errors import InvalidRequestError
from app.indexing.passages import Embedded, EmbeddingFailedError, PassageIndex
from app.json_values import JsonObject
from app.namespaces import only, stored_range
from app.providers.embedder import Vector
from app.resources import Resources
from app.search import context_repository, repository
from app.search.candidate_set import Integers
from app.search.candidates import Retrieval, find_candidates
from app.search.hits import Explainer, Hit, ScoreExplanation, SearchPage, explain_search
from app.search.plan import (
    KeyCursor,
    ListingPlan,
    RankedPlan,
    Scope,
    ScoringQuery,
    SearchPlan,
    SearchQuery,
    TimeCursor,
    cursor_after,
    plan_listing,
    plan_ranked,
    select_after,
)
from app.search.scoring import (
    ScoredItems,
    diversify,
    score_items,
    score_parts,
    score_relevance,
    select_eligible,
)
from app.store.filters import parse_filter
from app.store.service import restart_lifetimes
from app.store.types import Item
from app.usage_counter import UsageCounter

MAX_DIVERSE = 1000
"""Results that can be compared with one another in a few hundredths of a second."""

BYTES_A_TOKEN = 4
"""UTF-8 bytes a token: typical for English; a Chinese character counts for most of a token."""


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
        """Return the vector of each plan's text; call it before a connection is taken.

        Raises EmbeddingFailedError.
        """
        vectors: list[Vector | None] = []
        for embedded in await self.embed_each(plans):
            if isinstance(embedded, EmbeddingFailedError):
                raise embedded
            vectors.append(embedded)
        return vectors

    async def embed_if_possible(self, plans: list[SearchPlan]) -> list[Vector | None]:
        """Return the vectors as `embed` does, and none for a plan that has to do with words."""
        embedded = await self.embed_each(plans)
        return [None if isinstance(one, EmbeddingFailedError) else one for one in embedded]

    async def embed_each(self, plans: list[SearchPlan]) -> list[Embedded]:
        """Return for each plan its text's vector, or the error for which it has none."""
        texts = [None if isinstance(plan, ListingPlan) else plan.embedded_text for plan in plans]
        embedded = iter(
            await self._index.embed_each([text for text in texts if text is not None], kind="query")
        )
        return [None if text is None else next(embedded) for text in texts]

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
        page = await self._find(connection, plan, vector, max_bytes)
        if not plan.page.context:
            return page
        room = max_bytes - sum(hit.item.size for hit in page.hits)
        hits = await add_context(connection, plan, page.hits, max(room, 0))
        return replace(page, hits=hits)

    async def _find(
        self, connection: Connection, plan: SearchPlan, vector: Vector | None, max_bytes: int
    ) -> SearchPage:
        if isinstance(plan, ListingPlan):
            return await run_listing(connection, plan, max_bytes)
        with_uses = plan.explain or plan.weights.strength > 0
        query = ScoringQuery(
            self._index.id,
            vector,
            plan.words,
            with_uses=with_uses,
            class_weights=plan.class_weights,
        )
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


@dataclass(frozen=True, slots=True)
class HybridSearch:
    """One run of a search on one connection, comparing passages with the query.

    Takes two statements in a small scope. The first reads the numbers that scores depend on but
    no values, which may be large and of which only the page's are needed; the second reads those.
    Items are known by their indices in the candidate set.
    """

    connection: Connection
    plan: RankedPlan
    query: ScoringQuery

    async def run(self, *, largest: int, max_bytes: int) -> SearchPage:
        """Return the page that the plan names; scopes of up to `largest` passages are read whole.

        The page ends early if its values fill `max_bytes`.
        """
        plan = self.plan
        results = plan.seen + plan.page.limit
        retrieval = await find_candidates(
            self.connection,
            plan.scope,
            self.query,
            results=MAX_DIVERSE if plan.diversity else results + 1,
            largest=largest,
        )
        statistics = plan.statistics or retrieval.statistics
        relevance = score_relevance(retrieval.candidates, statistics, plan.mode)
        scored = score_items(
            retrieval.candidates, relevance, plan.weights, plan.half_lives, plan.now
        )
        eligible = select_eligible(
            scored, min_score=plan.min_score, matched_only=plan.mode == "text"
        )
        order = await self._diversify(scored, eligible, results) if plan.diversity else eligible
        rest = select_after(plan.cursor, scored, order) if plan.cursor else order[plan.seen :]
        page = [int(index) for index in rest[: plan.page.limit]]
        rows, fitting = await self._fetch_page(scored, page, max_bytes)
        cursor = None
        if len(rest) > len(fitting) > 0 and not plan.diversity:
            cursor = write_cursor(
                cursor_after(
                    scored,
                    fitting,
                    statistics,
                    fingerprint=plan.fingerprint,
                    seen=plan.seen,
                    now=plan.now,
                )
            )
        return SearchPage(
            hits=await self._hits(retrieval, scored, fitting, rows),
            left_out=frozenset(map(int, scored.candidates.items["id"][page[len(fitting) :]])),
            next_cursor=cursor,
            total=await self._total(retrieval, eligible),
            search=explain_search(plan, retrieval) if plan.explain else None,
        )

    async def _diversify(self, scored: ScoredItems, order: Integers, count: int) -> Integers:
        """Return the first `count` of an order, with items that resemble better ones held back.

        Always among the same best items, however few are needed, so that pages do not overlap.
        """
        order = order[:MAX_DIVERSE]
        vectors = await repository.fetch_passage_vectors(
            self.connection, self.query.index_id, _best_passages(scored, order)
        )
        pinned = int(scored.candidates.items["pinned"][order].sum())
        score = np.nan_to_num(scored.score[order])
        chosen = diversify(score, vectors, self.plan.diversity, count, pinned=pinned)
        return order[chosen]

    async def _fetch_page(
        self, scored: ScoredItems, page: list[int], max_bytes: int
    ) -> tuple[dict[int, Item], list[int]]:
        """Return the items whose values fit, by id, and the page up to the last of them."""
        ids = [int(item_id) for item_id in scored.candidates.items["id"][page]]
        fetched = await repository.fetch_items(self.connection, self.plan.scope, ids, max_bytes)
        rows = {item.id: item for item in fetched.items}
        end = ids.index(fetched.items[-1].id) + 1 if fetched.more else len(page)
        return rows, page[:end]

    async def _hits(
        self,
        retrieval: Retrieval,
        scored: ScoredItems,
        page: list[int],
        rows: Mapping[int, Item],
    ) -> list[Hit]:
        explanations = await self._explain(retrieval, scored, page)
        ids = [int(item_id) for item_id in scored.candidates.items["id"][page]]
        hits = [
            Hit(rows[item_id], _score(scored, index), explanations.get(index))
            for index, item_id in zip(page, ids, strict=True)
            if item_id in rows
        ]
        return fit_tokens(hits, self.plan.page.max_tokens)

    async def _explain(
        self, retrieval: Retrieval, scored: ScoredItems, page: list[int]
    ) -> dict[int, ScoreExplanation]:
        plan = self.plan
        if not plan.explain:
            return {}
        parts = score_parts(scored.candidates, scored.relevance.score, plan.half_lives, plan.now)
        texts = await repository.fetch_passage_texts(
            self.connection, self.query.index_id, _best_passages(scored, page)
        )
        explainer = Explainer(plan, retrieval, scored, parts)
        return {
            index: explainer.explain_item(index, text)
            for index, text in zip(page, texts, strict=True)
        }

    async def _total(self, retrieval: Retrieval, eligible: Integers) -> int | None:
        if not self.plan.page.with_total:
            return None
        if retrieval.method != "index":
            return len(eligible)
        words = self.query if self.plan.mode == "text" else None
        return await repository.count_items(self.connection, self.plan.scope, words)


async def run_listing(connection: Connection, plan: ListingPlan, max_bytes: int) -> SearchPage:
    """Return a page of a listing; it ends early if its values fill `max_bytes`."""
    page = await repository.fetch_listing(connection, plan, max_bytes)
    total = await repository.count_items(connection, plan.scope) if plan.page.with_total else None
    return SearchPage(
        fit_tokens([Hit(item) for item in page.items], plan.page.max_tokens),
        next_cursor=page.next_cursor(lambda last: _listing_cursor(plan, last)),
        total=total,
    )


async def add_context(
    connection: Connection, plan: SearchPlan, hits: Sequence[Hit], max_bytes: int
) -> list[Hit]:
    """Return hits with their neighbors in their threads, as far as these fit."""
    neighbors = await context_repository.fetch_context(
        connection, plan.scope, [hit.item.id for hit in hits], plan.page.context, max_bytes
    )
    return [replace(hit, context=tuple(neighbors.get(hit.item.id, ()))) for hit in hits]


def count_tokens(value: str) -> int:
    """Return roughly how many tokens an item's value takes, as JSON text."""
    return -(-len(value.encode()) // BYTES_A_TOKEN)


def fit_tokens(hits: Sequence[Hit], budget: int | None) -> list[Hit]:
    """Return the hits whose values fit, best first; one that does not fit is left out."""
    if budget is None:
        return list(hits)
    kept = []
    for hit in hits:
        tokens = count_tokens(hit.item.value)
        if tokens <= budget:
            kept.append(hit)
            budget -= tokens
    return kept


def _listing_cursor(plan: ListingPlan, item: Item) -> str:
    values: JsonObject = {
        "key": item.address.key,
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
    }
    kind = KeyCursor if plan.column == "key" else TimeCursor
    last = {"search": plan.fingerprint, "item_id": item.id, "value": values[plan.column]}
    return write_cursor(kind.model_validate(last))


def _score(scored: ScoredItems, index: int) -> float | None:
    score = float(scored.score[index])
    return None if np.isnan(score) else score


def _best_passages(scored: ScoredItems, page: list[int] | Integers) -> list[tuple[int, int]]:
    """Return the item id and ordinal of each item's best passage; ordinal -1 for none."""
    candidates, passages = scored.candidates, []
    for index in page:
        best = int(scored.relevance.passage[index])
        ordinal = int(candidates.passages["ordinal"][best]) if best >= 0 else -1
        passages.append((int(candidates.items["id"][index]), ordinal))
    return passages
