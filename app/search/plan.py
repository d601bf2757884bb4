"""A search query, the plan made from it once it is checked, and the cursor to the next page."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Annotated, Literal, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.db.pages import InvalidCursorError, read_cursor
from app.indexing.terms import MAX_QUERY_WORDS, QueryWord
from app.json_values import JsonObject
from app.namespaces import Labels, Range
from app.providers.embedder import Vector
from app.schemas import Clean, Moment
from app.search.candidate_set import Integers
from app.search.scoring import HalfLives, Mode, ScoredItems, Statistics, Weights
from app.store.filters import Filter

ItemId = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]
"""Seconds since 1970."""

Count = Annotated[float, Field(ge=0, le=1e12)]

MOST_SEEN = 100_000
"""How deep the cursors of a ranking count; a large scope is not searched deeper."""

DEFAULT_LIMIT = 10
DEFAULT_WEIGHTS = Weights()
DEFAULT_HALF_LIVES = HalfLives()

ClassWeights: TypeAlias = Mapping[str, float]
"""Factors of scores by the class of an item's sources; 1 for a class without one."""

Sort: TypeAlias = Literal["updated_at", "-updated_at", "created_at", "-created_at", "key", "-key"]
"""Column that a listing is ordered by; - is descending."""


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
    time: Seconds
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
    last = (not cursor.pinned, -score, -cursor.time, cursor.item_id)
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
        time=float(item["time"]),
        passages=statistics.passages,
        average_length=statistics.average_length,
        passages_with=statistics.passages_with.tolist(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A query for items at and below a namespace; without a text, they are listed."""

    namespace: Labels = ()
    with_children: bool = True
    text: str | None = None
    mode: Mode = "hybrid"
    filter: JsonObject | None = None
    valid_at: datetime | None = None
    with_expired: bool = False
    weights: Weights = DEFAULT_WEIGHTS
    half_lives: HalfLives = DEFAULT_HALF_LIVES
    class_weights: ClassWeights = field(default_factory=dict)
    min_score: float | None = None
    diversity: float = 0.0
    max_tokens: int | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0
    cursor: str | None = None
    sort: Sort = "-updated_at"
    with_total: bool = False
    context: int = 0
    explain: bool = False
    refresh_ttl: bool | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The items that a search is about."""

    namespaces: Range
    filter: Filter | None
    now: datetime
    with_expired: bool
    valid_at: datetime | None = None

    @property
    def is_unfiltered(self) -> bool:
        """True if there is no filter, neither on the value nor on validity."""
        return self.filter is None and self.valid_at is None


@dataclass(frozen=True, slots=True)
class ScoringQuery:
    """The part of a query that passages are compared with: a vector, words, or both."""

    index_id: int
    vector: Vector | None
    words: Sequence[QueryWord]
    with_uses: bool = False
    class_weights: ClassWeights = field(default_factory=dict)

    @property
    def word_of_place(self) -> list[int]:
        """The number of the word that the term at each place, from 1, stands for."""
        return [0, *(number for number, word in enumerate(self.words) for _ in word.terms)]


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The part of the ordered results to return, and options of the answer."""

    limit: int
    offset: int
    max_tokens: int | None
    with_total: bool
    refresh_ttl: bool
    context: int = 0
    """How many items before and after each in its thread are returned with it."""


@dataclass(frozen=True, slots=True)
class ListingPlan:
    """A search without a text."""

    fingerprint: str
    scope: Scope
    page: PageOptions
    sort: Sort
    cursor: TimeCursor | KeyCursor | None

    @property
    def column(self) -> str:
        """The column that items are ordered by."""
        return self.sort.removeprefix("-")


@dataclass(frozen=True, slots=True)
class RankedPlan:
    """A search with a text; `embedded_text` is None if only words are compared."""

    fingerprint: str
    scope: Scope
    page: PageOptions
    embedded_text: str | None
    words: list[QueryWord]
    mode: Mode
    weights: Weights
    half_lives: HalfLives
    class_weights: ClassWeights
    min_score: float | None
    diversity: float
    cursor: RankedCursor | None
    explain: bool

    @property
    def now(self) -> float:
        """The time from which recency and strength are measured, in seconds since 1970."""
        return self.cursor.now if self.cursor else self.scope.now.timestamp()

    @property
    def statistics(self) -> Statistics | None:
        """BM25's statistics, if an earlier page fixed them."""
        if self.cursor is None:
            return None
        known = self.cursor
        return Statistics(
            known.passages, known.average_length, np.array(known.passages_with, np.float64)
        )

    @property
    def seen(self) -> int:
        """How many results come before the page."""
        return self.cursor.seen if self.cursor else self.page.offset


SearchPlan: TypeAlias = ListingPlan | RankedPlan


def plan_listing(query: SearchQuery, scope: Scope, *, refresh_ttl: bool) -> ListingPlan:
    """Plan a search without a text; raises InvalidCursorError."""
    name = fingerprint(query, scope)
    cursor: TimeCursor | KeyCursor | None = None
    if query.cursor is not None and query.sort in ("key", "-key"):
        cursor = read_search_cursor(query.cursor, name, KeyCursor)
    elif query.cursor is not None:
        cursor = read_search_cursor(query.cursor, name, TimeCursor)
    return ListingPlan(name, scope, _page_options(query, refresh_ttl), query.sort, cursor)


def plan_ranked(
    query: SearchQuery, scope: Scope, words: list[QueryWord], *, embeds: bool, refresh_ttl: bool
) -> RankedPlan:
    """Plan a search with a text; raises InvalidCursorError."""
    name = fingerprint(query, scope)
    compared = [] if query.mode == "vector" else words
    return RankedPlan(
        fingerprint=name,
        scope=scope,
        page=_page_options(query, refresh_ttl),
        embedded_text=query.text if embeds and query.mode != "text" else None,
        words=compared,
        mode=query.mode,
        weights=query.weights,
        half_lives=query.half_lives,
        class_weights=query.class_weights,
        min_score=query.min_score,
        diversity=query.diversity,
        cursor=None if query.cursor is None else _ranked_cursor(query.cursor, name, compared),
        explain=query.explain,
    )


def fingerprint(query: SearchQuery, scope: Scope) -> str:
    """Return a short name that is the same for all pages of a search, and for no other search."""
    parts = [
        scope.namespaces.low,
        scope.with_expired,
        query.text,
        query.mode,
        query.filter or {},
        query.valid_at,
        query.sort,
        query.min_score,
        asdict(query.weights),
        asdict(query.half_lives),
        dict(query.class_weights),
    ]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def _ranked_cursor(text: str, name: str, words: list[QueryWord]) -> RankedCursor:
    cursor = read_search_cursor(text, name, RankedCursor)
    if len(cursor.passages_with) != len(words):
        raise InvalidCursorError
    return cursor


def _page_options(query: SearchQuery, refresh_ttl: bool) -> PageOptions:
    return PageOptions(
        limit=query.limit,
        offset=query.offset,
        max_tokens=query.max_tokens,
        with_total=query.with_total,
        refresh_ttl=refresh_ttl,
        context=query.context,
    )
