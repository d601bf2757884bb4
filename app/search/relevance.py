"""Relevance: how well an item answers a query, by meaning and by words."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from app.search.context import nearby_weights
from app.search.lexical import Statistics, coverage, word_weights
from app.search.pool import Floats, Integers, Pool, Truths

Mode: TypeAlias = Literal["hybrid", "vector", "text"]

LEXICAL_SHARE = 0.55
"""Of the relevance, for a query all of whose words stand in the scope.

On LoCoMo recall@10 is 0.69 for shares of 0.45 to 0.6, 0.64 for words alone and 0.49 for meaning
alone.
"""


@dataclass(frozen=True, slots=True)
class Relevance:
    """For each item of a pool, what its best passage earned; NaN where it has no passage.

    `words` is the weight of each word (row) in that passage, `nearby` what the thread added, and
    `has_word` says whether any passage of the item has any word.
    """

    score: Floats
    similarity: Floats
    lexical: Floats
    passage: Integers
    words: Floats
    nearby: Floats
    has_word: Truths


def relevance(pool: Pool, statistics: Statistics, mode: Mode) -> Relevance:
    """Score the passages of a pool and give each item its best."""
    own = word_weights(pool, statistics)
    by_item = np.zeros((len(own), len(pool.items)))
    for row, of_word in zip(by_item, own, strict=True):
        np.maximum.at(row, pool.item_of, of_word)
    nearby = nearby_weights(by_item, pool.items)[:, pool.item_of]
    lexical = coverage(np.maximum(own, nearby), statistics.rarity)
    similarity = pool.passages["similarity"]
    score = _combined(similarity, lexical, mode, known=statistics.known)
    best = _best_passages(score, coverage(own, statistics.rarity), pool)
    return Relevance(
        score=_of_best(score, best, np.nan),
        similarity=_of_best(similarity, best, np.nan),
        lexical=_of_best(lexical, best, np.nan),
        passage=best,
        words=_of_best(own, best, 0.0),
        nearby=_of_best(nearby, best, 0.0),
        has_word=by_item.max(axis=0, initial=0.0) > 0,
    )


def _combined(similarity: Floats, lexical: Floats, mode: Mode, *, known: float) -> Floats:
    """Mix both, each in 0 to 1; where nothing was embedded, words are all.

    Words that stand nowhere in the scope tell nothing: their part of the share goes to meaning.
    """
    if mode == "text":
        return lexical
    if mode == "vector":
        return similarity
    compared = ~np.isnan(similarity)
    meaning = np.clip(np.where(compared, similarity, 0), 0, 1)
    mixed = LEXICAL_SHARE * lexical + (1 - LEXICAL_SHARE * known) * meaning
    # What was unknown on the page that a cursor came with may be found by now.
    return np.where(compared, np.minimum(mixed, 1), lexical)


def _best_passages(score: Floats, own: Floats, pool: Pool) -> Integers:
    """Return each item's best passage, of equals the one that says more itself; -1 for none."""
    best = np.full(len(pool.items), -1)
    comparable = np.where(np.isnan(score), -np.inf, score)
    order = np.lexsort((-pool.passages["ordinal"], own, comparable, pool.item_of))
    best[pool.item_of[order]] = order  # the last written, and so the best, stays
    return best


def _of_best(values: Floats, best: Integers, missing: float) -> Floats:
    """Return the values (the last axis is passages) of the best passages."""
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], len(best)), missing)
    return np.where(best >= 0, values[..., best], missing)
