"""Running a planned search on a connection: a ranking by score, or a listing in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.db.database import Connection
from app.json_values import JsonObject
from app.pagination import write_cursor
from app.search import repository
from app.search.candidate_set import Integers
from app.search.candidates import Retrieval, find_candidates
from app.search.cursors import KeyCursor, TimeCursor, cursor_after, select_after
from app.search.explain import Explainer, explain_search
from app.search.hits import Hit, ScoreExplanation, SearchPage
from app.search.plan import ListingPlan, RankedPlan, ScoringQuery
from app.search.scoring import (
    ScoredItems,
    diversify,
    score_items,
    score_parts,
    score_relevance,
    select_eligible,
)
from app.store.types import Item

MAX_DIVERSE = 1000
"""Results that can be compared with one another in a few hundredths of a second."""

BYTES_A_TOKEN = 4
"""UTF-8 bytes a token: typical for English; a Chinese character counts for most of a token."""


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
