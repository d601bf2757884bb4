"""A search query, and the plan that is made from it once it is checked."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np

from app.indexing.terms import QueryWord
from app.json_values import JsonObject
from app.namespaces import Labels, Range
from app.pagination import InvalidCursorError
from app.providers.embeddings.base import Vector
from app.search.bm25 import Statistics
from app.search.cursors import KeyCursor, RankedCursor, TimeCursor, read_search_cursor
from app.search.scoring import HalfLives, Mode, Weights
from app.store.filters import Filter

DEFAULT_LIMIT = 10
DEFAULT_WEIGHTS = Weights()
DEFAULT_HALF_LIVES = HalfLives()

Sort: TypeAlias = Literal["updated_at", "-updated_at", "created_at", "-created_at", "key", "-key"]
"""Column that a listing is ordered by; - is descending."""


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
    min_score: float | None = None
    diversity: float = 0.0
    max_tokens: int | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0
    cursor: str | None = None
    sort: Sort = "-updated_at"
    with_total: bool = False
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
    )
