"""A search that was checked and may run."""

from dataclasses import asdict, dataclass

import numpy as np

from app.indexing.terms import QueryWord
from app.pagination import InvalidCursorError
from app.search.cursors import (
    KeyCursor,
    RankedCursor,
    TimeCursor,
    fingerprint,
    read_search_cursor,
)
from app.search.lexical import Statistics
from app.search.ranking import HalfLives, Weights
from app.search.relevance import Mode
from app.search.schemas import (
    DEFAULT_LIMIT,
    DEFAULT_MODE,
    DEFAULT_SORT,
    BlendHalfLives,
    BlendWeights,
    SearchItems,
    Sort,
)
from app.search.scope import Scope

_WEIGHTS, _HALF_LIVES = BlendWeights(), BlendHalfLives()


@dataclass(frozen=True, slots=True)
class Page:
    """Which of the ordered results to return, and what else to say."""

    limit: int
    offset: int
    max_tokens: int | None
    with_total: bool
    refresh_ttl: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A search without a query."""

    name: str
    scope: Scope
    page: Page
    sort: Sort
    cursor: TimeCursor | KeyCursor | None


@dataclass(frozen=True, slots=True)
class RankedSearch:
    """A search with a query; `query` is what is embedded, None where only words are compared."""

    name: str
    scope: Scope
    page: Page
    query: str | None
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
        """When recency and strength are reckoned from, in seconds since 1970."""
        return self.cursor.now if self.cursor else self.scope.now.timestamp()

    @property
    def statistics(self) -> Statistics | None:
        """What BM25 rests on where a page before fixed it."""
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


PreparedSearch = Listing | RankedSearch


def listing(body: SearchItems, scope: Scope, *, refresh_ttl: bool) -> Listing:
    """Prepare a search without a query; raises InvalidCursorError."""
    name = _name(body, scope)
    sort = body.sort or DEFAULT_SORT
    cursor: TimeCursor | KeyCursor | None = None
    if body.cursor is not None and sort in ("key", "-key"):
        cursor = read_search_cursor(body.cursor, name, KeyCursor)
    elif body.cursor is not None:
        cursor = read_search_cursor(body.cursor, name, TimeCursor)
    return Listing(name, scope, _page(body, refresh_ttl), sort, cursor)


def ranked(
    body: SearchItems, scope: Scope, words: list[QueryWord], *, embeds: bool, refresh_ttl: bool
) -> RankedSearch:
    """Prepare a search with a query; raises InvalidCursorError."""
    name = _name(body, scope)
    mode = body.mode or DEFAULT_MODE
    compared = [] if mode == "vector" else words
    return RankedSearch(
        name=name,
        scope=scope,
        page=_page(body, refresh_ttl),
        query=body.query if embeds and mode != "text" else None,
        words=compared,
        mode=mode,
        weights=(body.weights or _WEIGHTS).as_weights(),
        half_lives=(body.half_life_days or _HALF_LIVES).as_half_lives(),
        min_score=body.min_score,
        diversity=body.diversity or 0.0,
        cursor=None if body.cursor is None else _ranked_cursor(body.cursor, name, compared),
        explain=bool(body.explain),
    )


def _ranked_cursor(text: str, name: str, words: list[QueryWord]) -> RankedCursor:
    cursor = read_search_cursor(text, name, RankedCursor)
    if len(cursor.passages_with) != len(words):
        raise InvalidCursorError
    return cursor


def _name(body: SearchItems, scope: Scope) -> str:
    """Name the search that all pages with these members belong to."""
    return fingerprint(
        scope.namespaces.low,
        scope.with_expired,
        body.query,
        body.mode or DEFAULT_MODE,
        body.filter or {},
        body.valid_at,
        body.sort or DEFAULT_SORT,
        body.min_score,
        asdict((body.weights or _WEIGHTS).as_weights()),
        asdict((body.half_life_days or _HALF_LIVES).as_half_lives()),
    )


def _page(body: SearchItems, refresh_ttl: bool) -> Page:
    return Page(
        limit=DEFAULT_LIMIT if body.limit is None else body.limit,
        offset=body.offset or 0,
        max_tokens=body.max_tokens,
        with_total=bool(body.with_total),
        refresh_ttl=refresh_ttl,
    )
