"""Cursors: the last item of a page, so that the next page continues after it."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.indexing.terms import MAX_QUERY_WORDS
from app.pagination import InvalidCursorError, read_cursor
from app.schemas import Clean, Moment
from app.search.bm25 import Statistics
from app.search.candidate_set import Integers
from app.search.scoring import ScoredItems

ItemId = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]
"""Seconds since 1970."""

Count = Annotated[float, Field(ge=0, le=1e12)]

MOST_SEEN = 100_000
"""How deep the cursors of a ranking count; a large scope is not searched deeper."""


class Cursor(BaseModel):
    """The fingerprint of the search that a cursor belongs to, and the last item returned."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="forbid")

    search: str
    item_id: ItemId


class RankedCursor(Cursor):
    """The sort keys of the last item of a ranking, how many were returned, and fixed statistics.

    All that a score depends on, except the item itself, is kept from the first page, so that an
    item has the same score on every page despite later writes: the time from which recency and
    strength are measured, and BM25's statistics.
    """

    seen: Annotated[int, Field(ge=0, le=MOST_SEEN)]
    now: Seconds
    pinned: bool
    score: Annotated[float, Field(ge=-1.001, le=1.001)] | None  # a cosine may be off by a bit
    updated_at: Seconds
    passages: Count
    average_length: Count
    passages_with: Annotated[list[Count], Field(max_length=MAX_QUERY_WORDS)]


class TimeCursor(Cursor):
    """The last item of a page of a listing by time."""

    value: Annotated[Moment, Field(strict=False)]


class KeyCursor(Cursor):
    """The last item of a page of a listing by key."""

    value: Clean


AnyCursor = TypeVar("AnyCursor", bound=Cursor)


def read_search_cursor(text: str, fingerprint: str, kind: type[AnyCursor]) -> AnyCursor:
    """Return the cursor in a request; raises InvalidCursorError if it is of another search."""
    cursor = read_cursor(text, kind)
    if cursor.search != fingerprint:
        raise InvalidCursorError(
            "cursor belongs to another search; send the same namespace_prefix, query, filter and "
            "ranking as for the page it came with."
        )
    return cursor


def select_after(cursor: RankedCursor, scored: ScoredItems, order: Integers) -> Integers:
    """Return the part of an order after a cursor's item, whether or not that item still exists."""
    score = -np.inf if cursor.score is None else cursor.score
    last = (not cursor.pinned, -score, -cursor.updated_at, cursor.item_id)
    later = np.zeros(len(order), dtype=bool)
    level = np.ones(len(order), dtype=bool)
    for keys, key in zip(scored.sort_keys, last, strict=True):
        later |= level & (keys[order] > key)
        level &= keys[order] == key
    return order[later]


def cursor_after(
    scored: ScoredItems,
    page: Sequence[int],
    statistics: Statistics,
    *,
    fingerprint: str,
    seen: int,
    now: float,
) -> RankedCursor:
    """Return the cursor after a page of items; `seen` is how many came before the page."""
    last = page[-1]
    item, score = scored.candidates.items[last], scored.score[last]
    return RankedCursor(
        search=fingerprint,
        item_id=int(item["id"]),
        seen=min(seen + len(page), MOST_SEEN),
        now=now,
        pinned=bool(item["pinned"]),
        score=None if np.isnan(score) else float(score),
        updated_at=float(item["updated_at"]),
        passages=statistics.passages,
        average_length=statistics.average_length,
        passages_with=statistics.passages_with.tolist(),
    )
