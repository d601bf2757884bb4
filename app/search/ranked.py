"""A search with a query, from candidates to a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from asyncpg import Record

from app.db.database import Connection
from app.pagination import write_cursor
from app.search.budget import diversified, within_tokens
from app.search.candidates import Candidates, find_candidates
from app.search.explaining import explain_item, explain_search
from app.search.found import Found, Result
from app.search.gathering import Asked
from app.search.paging import behind, cursor_behind, eligible
from app.search.pool import Integers
from app.search.prepared import RankedSearch
from app.search.ranking import Ranking, parts, rank
from app.search.relevance import relevance
from app.search.results import count_items, fetch_items, fetch_texts, fetch_vectors
from app.search.schemas import MAX_DIVERSE


@dataclass(frozen=True, slots=True)
class RankedRun:
    """One run of a search on one connection, comparing passages with what is asked.

    Takes two statements where the scope is small. The first reads what is ranked but no values,
    which may be large and of which only the page's are wanted; the second reads those.
    """

    connection: Connection
    search: RankedSearch
    asked: Asked

    async def find(self, *, largest: int, max_bytes: int) -> Found:
        """Return the page that is asked for; scopes of up to `largest` passages are read whole.

        The page ends early if its values fill `max_bytes`.
        """
        search = self.search
        wanted = search.seen + search.page.limit
        candidates = await find_candidates(
            self.connection,
            search.scope,
            self.asked,
            wanted=MAX_DIVERSE if search.diversity else wanted + 1,
            largest=largest,
        )
        statistics = search.statistics or candidates.statistics
        compared = relevance(candidates.pool, statistics, search.mode)
        ranking = rank(candidates.pool, compared, search.weights, search.half_lives, search.now)
        order = eligible(ranking, min_score=search.min_score, matched_only=search.mode == "text")
        pages = await self._diversified(ranking, order, wanted) if search.diversity else order
        rest = behind(ranking, pages, search.cursor) if search.cursor else pages[search.seen :]
        wished = [int(place) for place in rest[: search.page.limit]]
        rows, places = await self._fitting(ranking, wished, max_bytes)
        cursor = None
        if len(rest) > len(places) > 0 and not search.diversity:
            cursor = write_cursor(cursor_behind(ranking, places, search, statistics))
        return Found(
            results=await self._results(candidates, ranking, places, rows),
            left_out=frozenset(map(int, ranking.pool.items["id"][wished[len(places) :]])),
            next_cursor=cursor,
            total=await self._total(candidates, order),
            search=explain_search(search, candidates) if search.explain else None,
        )

    async def _diversified(self, ranking: Ranking, order: Integers, count: int) -> Integers:
        """Return the first `count` of an order, those held back that resemble better ones.

        Always of the same best ones, however few are wanted, so that pages do not overlap.
        """
        order = order[:MAX_DIVERSE]
        vectors = await fetch_vectors(
            self.connection, self.asked.index_id, _best_passages(ranking, order)
        )
        pinned = int(ranking.pool.items["pinned"][order].sum())
        score = np.nan_to_num(ranking.score[order])
        chosen = diversified(score, vectors, self.search.diversity, count, pinned=pinned)
        return order[chosen]

    async def _fitting(
        self, ranking: Ranking, places: list[int], max_bytes: int
    ) -> tuple[dict[int, Record], list[int]]:
        """Return the items whose values fit, by id, and the places up to the last of them."""
        ids = [int(item_id) for item_id in ranking.pool.items["id"][places]]
        page = await fetch_items(self.connection, self.search.scope, ids, max_bytes)
        rows = {row["id"]: row for row in page.items}
        end = ids.index(page.items[-1]["id"]) + 1 if page.more else len(places)
        return rows, places[:end]

    async def _results(
        self,
        candidates: Candidates,
        ranking: Ranking,
        places: list[int],
        rows: Mapping[int, Record],
    ) -> list[Result]:
        why = await self._explanations(candidates, ranking, places)
        ids = [int(item_id) for item_id in ranking.pool.items["id"][places]]
        results = [
            Result(rows[item_id], _score(ranking, place), why.get(place))
            for place, item_id in zip(places, ids, strict=True)
            if item_id in rows
        ]
        budget = self.search.page.max_tokens
        return results if budget is None else within_tokens(results, budget)

    async def _explanations(
        self, candidates: Candidates, ranking: Ranking, places: list[int]
    ) -> dict[int, dict[str, Any]]:
        search = self.search
        if not search.explain:
            return {}
        of = parts(ranking.pool, ranking.relevance.score, search.half_lives, search.now)
        passages = _best_passages(ranking, places)
        texts = await fetch_texts(self.connection, self.asked.index_id, passages)
        return {
            place: explain_item(ranking, of, candidates, self.asked, place) | {"passage": text}
            for place, text in zip(places, texts, strict=True)
        }

    async def _total(self, candidates: Candidates, order: Integers) -> int | None:
        if not self.search.page.with_total:
            return None
        if candidates.way != "index":
            return len(order)
        words = self.asked if self.search.mode == "text" else None
        return await count_items(self.connection, self.search.scope, words)


def _score(ranking: Ranking, place: int) -> float | None:
    score = float(ranking.score[place])
    return None if np.isnan(score) else score


def _best_passages(ranking: Ranking, places: list[int] | Integers) -> list[tuple[int, int]]:
    """Return the item id and ordinal of each item's best passage; ordinal -1 where it has none."""
    pool, found = ranking.pool, []
    for place in places:
        best = int(ranking.relevance.passage[place])
        ordinal = int(pool.passages["ordinal"][best]) if best >= 0 else -1
        found.append((int(pool.items["id"][place]), ordinal))
    return found
