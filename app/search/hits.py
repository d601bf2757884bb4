"""Hits of a search, the page of them that a caller gets, and how their scores were computed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from app.search.candidates import Method, Retrieval
from app.search.plan import RankedPlan
from app.search.scoring import HalfLives, Mode, ScoredItems, ScoreParts, Weights
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
    class_weight: float | None
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
    context: tuple[Item, ...] | None = None
    """Its neighbors in its thread, in order, if they were requested."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of hits, and the optional parts of the answer."""

    hits: list[Hit]
    left_out: frozenset[int] = frozenset()
    """Ids of the page's items whose values do not fit into its budget of bytes."""
    next_cursor: str | None = None
    total: int | None = None
    search: SearchExplanation | None = None


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the items of one ranking, by their indices."""

    plan: RankedPlan
    retrieval: Retrieval
    scored: ScoredItems
    parts: ScoreParts

    def explain_item(self, index: int, passage: str | None) -> ScoreExplanation:
        """Return how an item's score was computed; `passage` is the text of its best passage."""
        relevance, parts = self.scored.relevance, self.parts
        return ScoreExplanation(
            relevance=_rounded(relevance.score[index]),
            similarity=_rounded(relevance.similarity[index]),
            lexical=_rounded(relevance.lexical[index]) if self.plan.words else None,
            recency=_rounded(parts.recency[index]),
            importance=_rounded(parts.importance[index]),
            strength=_rounded(parts.strength[index]),
            class_weight=_rounded(self.scored.candidates.items["factor"][index]),
            pinned=bool(self.scored.candidates.items["pinned"][index]),
            words=self._matched_words(index),
            found_by=self._found_by(index),
            passage=passage,
        )

    def _matched_words(self, index: int) -> list[MatchedWord]:
        own = self.scored.relevance.words[:, index]
        nearby = self.scored.relevance.nearby[:, index]
        rarity = self.retrieval.statistics.rarity
        return [
            MatchedWord(word.word, _rounded(own[n]), _rounded(nearby[n]), _rounded(rarity[n]))
            for n, word in enumerate(self.plan.words)
            if own[n] or nearby[n]
        ]

    def _found_by(self, index: int) -> list[CandidateList]:
        relevance, retrieval = self.scored.relevance, self.retrieval
        item_id = int(self.scored.candidates.items["id"][index])
        is_in: dict[CandidateList, bool] = (
            {
                "vector": item_id in retrieval.by_vector,
                "text": item_id in retrieval.by_words,
            }
            if retrieval.method == "index"
            else {
                "vector": not np.isnan(relevance.similarity[index]),
                "text": bool(relevance.words[:, index].any()),
            }
        )
        is_in["context"] = bool(relevance.nearby[:, index].any())
        return [name for name, named in is_in.items() if named]


def explain_search(plan: RankedPlan, retrieval: Retrieval) -> SearchExplanation:
    """Return how a scope was searched."""
    statistics = retrieval.statistics
    return SearchExplanation(
        mode=plan.mode,
        scope=retrieval.method,
        passages=round(statistics.passages),
        words=[
            SearchedWord(word.word, round(float(rarity), 6), round(passages))
            for word, rarity, passages in zip(
                plan.words, statistics.rarity, statistics.passages_with, strict=True
            )
        ],
        weights=plan.weights,
        half_life_days=plan.half_lives,
    )


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
