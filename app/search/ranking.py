"""The blend of relevance, recency, importance and strength, and the order that follows from it."""

from dataclasses import dataclass

import numpy as np

from app.search.pool import Floats, Integers, Pool
from app.search.relevance import Relevance

SECONDS_A_DAY = 86_400

NEUTRAL_IMPORTANCE = 0.5
"""Of items that were given none."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part counts; only their proportions matter."""

    relevance: float
    recency: float
    importance: float
    strength: float

    @property
    def total(self) -> float:
        """The sum of all four."""
        return self.relevance + self.recency + self.importance + self.strength


@dataclass(frozen=True, slots=True)
class HalfLives:
    """After how many days a part is worth half."""

    recency: float
    strength: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What each item's score is made of, each in 0 to 1."""

    relevance: Floats
    recency: Floats
    importance: Floats
    strength: Floats


def parts(pool: Pool, relevance: Floats, half_lives: HalfLives, now: float) -> Parts:
    """Return every part for the items of a pool; `now` in seconds since 1970."""
    importance = pool.items["importance"]
    uses, last_used_at = _uses_of(pool)
    return Parts(
        relevance=np.nan_to_num(relevance),
        recency=recency((now - pool.items["updated_at"]) / SECONDS_A_DAY, half_lives.recency),
        importance=np.where(np.isnan(importance), NEUTRAL_IMPORTANCE, importance),
        strength=strength(uses, (now - last_used_at) / SECONDS_A_DAY, half_lives.strength),
    )


def recency(age: Floats, half_life: float) -> Floats:
    """Return 1 for what changed just now, halved with every half-life; both in days."""
    decayed: Floats = np.exp2(-np.maximum(age, 0) / half_life)
    return decayed


def strength(uses: Floats, idle: Floats, half_life: float) -> Floats:
    """Return how firmly an item is remembered: 0 if never used, 1 if used just now.

    Ebbinghaus's forgetting curve, exp(-t/S), as MemoryBank (Zhong et al., 2024) uses it: it falls
    with the days since the last use, more slowly after every use. There S grows by one with each
    use; here by its logarithm, so that a loop that reads an item a thousand times does not make
    it unforgettable.
    """
    stability = half_life * (1 + np.log2(np.maximum(uses, 1)))
    remembered: Floats = np.where(uses > 0, np.exp2(-np.maximum(idle, 0) / stability), 0.0)
    return remembered


def blend(of: Parts, weights: Weights) -> Floats:
    """Return the weighted mean of the parts: in 0 to 1 where they are."""
    weighted: Floats = (
        weights.relevance * of.relevance
        + weights.recency * of.recency
        + weights.importance * of.importance
        + weights.strength * of.strength
    )
    return weighted / weights.total


def sort_keys(pool: Pool, score: Floats) -> tuple[Floats, ...]:
    """Return what items are ordered by, ascending and the most significant first.

    Pinned ones first, then by score, the later updated, the older item.
    """
    ranked = np.where(np.isnan(score), -np.inf, score)
    items = pool.items
    return ~items["pinned"], -ranked, -items["updated_at"], items["id"]


def _uses_of(pool: Pool) -> tuple[Floats, Floats]:
    """Return how often and when each item was last used; 0 where it never was."""
    uses, last = np.zeros(len(pool.items)), np.zeros(len(pool.items))
    if len(pool.items) and len(pool.uses):
        places = np.searchsorted(pool.items["id"], pool.uses["item_id"])
        places = np.minimum(places, len(pool.items) - 1)
        known = pool.items["id"][places] == pool.uses["item_id"]
        uses[places[known]] = pool.uses["uses"][known]
        last[places[known]] = pool.uses["last_used_at"][known]
    return uses, last


@dataclass(frozen=True, slots=True)
class Ranking:
    """A pool with its items' scores, and their places in it, best first."""

    pool: Pool
    relevance: Relevance
    score: Floats
    order: Integers


def rank(pool: Pool, of: Relevance, weights: Weights, half_lives: HalfLives, now: float) -> Ranking:
    """Score and order the items of a pool; `now` in seconds since 1970."""
    if weights.relevance == weights.total:
        score = of.score  # not a number where nothing was compared
    else:
        score = blend(parts(pool, of.score, half_lives, now), weights)
    # Rounded, so that a last bit does not part what a cursor compares.
    score = np.round(score, 9)
    return Ranking(pool, of, score, np.lexsort(sort_keys(pool, score)[::-1]))
