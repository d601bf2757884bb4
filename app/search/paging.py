"""Which places of a ranking a page may hold, and the cursor to the next page."""

from collections.abc import Sequence

import numpy as np

from app.search.cursors import MOST_SEEN, RankedCursor
from app.search.lexical import Statistics
from app.search.pool import Integers
from app.search.prepared import RankedSearch
from app.search.ranking import Ranking, sort_keys


def eligible(ranking: Ranking, *, min_score: float | None, matched_only: bool) -> Integers:
    """Return the places that may be returned, best first: good enough, with a word if need be."""
    order: Integers = ranking.order[ranking.pool.items["passes"][ranking.order]]
    if min_score is not None:
        pinned = ranking.pool.items["pinned"][order]
        order = order[pinned | (np.nan_to_num(ranking.score[order], nan=-1.0) >= min_score)]
    if matched_only:
        order = order[ranking.relevance.has_word[order]]
    return order


def behind(ranking: Ranking, order: Integers, cursor: RankedCursor) -> Integers:
    """Return what of an order comes behind a cursor's item, whether or not that is still there."""
    score = -np.inf if cursor.score is None else cursor.score
    last = (not cursor.pinned, -score, -cursor.updated_at, cursor.item_id)
    later = np.zeros(len(order), dtype=bool)
    level = np.ones(len(order), dtype=bool)
    for keys, key in zip(sort_keys(ranking.pool, ranking.score), last, strict=True):
        later |= level & (keys[order] > key)
        level &= keys[order] == key
    return order[later]


def cursor_behind(
    ranking: Ranking, places: Sequence[int], search: RankedSearch, statistics: Statistics
) -> RankedCursor:
    """Return the cursor after a page of a search; `places` are those of its items."""
    place = places[-1]
    item, score = ranking.pool.items[place], ranking.score[place]
    return RankedCursor(
        search=search.name,
        item_id=int(item["id"]),
        seen=min(search.seen + len(places), MOST_SEEN),
        now=search.now,
        pinned=bool(item["pinned"]),
        score=None if np.isnan(score) else float(score),
        updated_at=float(item["updated_at"]),
        passages=statistics.passages,
        average_length=statistics.average_length,
        passages_with=statistics.passages_with.tolist(),
    )
