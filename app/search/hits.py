"""Hits of a search, and the page of them that a caller gets."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.search.candidates import Method
from app.search.scoring import HalfLives, Mode, Weights
from app.store.types import Item

CandidateList: TypeAlias = Literal["vector", "text", "context"]
"""A list that can name a candidate; context: it is a neighbor in a thread."""


@dataclass(frozen=True, slots=True)
class MatchedWord:
    """A word of the query, and how fully a passage and its neighbors cover it."""

    word: str
    weight: float | None
    nearby: float | None
    rarity: float | None


@dataclass(frozen=True, slots=True)
class ScoreExplanation:
    """How an item's score was computed; None if there was nothing to compare."""

    relevance: float | None
    similarity: float | None
    lexical: float | None
    recency: float | None
    importance: float | None
    strength: float | None
    pinned: bool
    words: list[MatchedWord]
    found_by: list[CandidateList]
    passage: str | None


@dataclass(frozen=True, slots=True)
class SearchedWord:
    """A word that passages were compared with, and how many have it."""

    word: str
    rarity: float
    passages: int


@dataclass(frozen=True, slots=True)
class SearchExplanation:
    """How a scope was searched."""

    mode: Mode
    scope: Method
    passages: int
    words: list[SearchedWord]
    weights: Weights
    half_life_days: HalfLives


@dataclass(frozen=True, slots=True)
class Hit:
    """An item, its score, and how the score was computed if that was requested."""

    item: Item
    score: float | None = None
    explanation: ScoreExplanation | None = None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of hits, and the optional parts of the answer."""

    hits: list[Hit]
    left_out: frozenset[int] = frozenset()
    """Ids of the page's items whose values do not fit into its budget of bytes."""
    next_cursor: str | None = None
    total: int | None = None
    search: SearchExplanation | None = None
