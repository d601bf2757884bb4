"""BM25: how much of a query a passage covers."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.search.candidate_set import CandidateSet, Floats, Rows, passage_number

K1 = 0.9
"""How soon repetitions of a word stop counting.

This and B are Anserini's defaults for short passages (Lin et al., 2016); on LoCoMo's turns K1 from
0.6 to 1.2 and B from 0.2 to 0.75 are within 0.01 of one another.
"""

B = 0.4
"""How much a passage that is longer than average is penalized."""

_WORD_BITS = 5
"""A query has at most 32 words."""


@dataclass(frozen=True)
class Statistics:
    """BM25's view of a scope: its passages, and how many have each word of the query."""

    passages: float
    average_length: float
    passages_with: Floats

    @cached_property
    def rarity(self) -> Floats:
        """Return each word's inverse document frequency (Robertson and Zaragoza, 2009; never < 0).

        A word that occurs nowhere is the rarest.
        """
        have = np.minimum(self.passages_with, self.passages)
        rarity: Floats = np.log1p((self.passages - have + 0.5) / (have + 0.5))
        return rarity

    @cached_property
    def known(self) -> float:
        """Return the share of the query, by rarity, whose words occur in the scope."""
        rarity = self.rarity
        total = float(rarity.sum())
        return float(rarity[self.passages_with > 0].sum()) / total if total else 0.0


def count_statistics(passages: Rows, hits: Rows, words: int) -> Statistics:
    """Count over all passages of a scope."""
    # One number for a passage and a word: several forms of a word in a passage count once.
    number = (passage_number(hits) << _WORD_BITS) | hits["word"]
    having = np.unique(number) & ((1 << _WORD_BITS) - 1)
    total = len(passages)
    return Statistics(
        total,
        float(passages["length"].sum() / max(total, 1)),
        np.bincount(having, minlength=words).astype(np.float64),
    )


def saturation(frequency: Floats, length: Floats, average_length: float) -> Floats:
    """Return the weight of a word, below 1, by its frequency and the passage's length."""
    relative = length / max(average_length, 1.0)
    weight: Floats = frequency / (frequency + K1 * (1 - B + B * relative))
    return weight


def word_weights(candidates: CandidateSet, statistics: Statistics) -> Floats:
    """Return the weight of each word (row) in each passage (column)."""
    weights = np.zeros((len(statistics.passages_with), len(candidates.passages)))
    hits = candidates.hits
    found = saturation(
        hits["frequency"].astype(np.float64),
        hits["length"].astype(np.float64),
        statistics.average_length,
    )
    # A word may occur in several forms; the best counts.
    np.maximum.at(weights, (hits["word"], candidates.passage_of), found)
    return weights


def coverage(weights: Floats, rarity: Floats) -> Floats:
    """Return the share of the query that passages cover, 0 to 1: BM25 divided by its maximum.

    So a score means the same for every query, whatever else was found.
    """
    total = rarity.sum()
    if total <= 0:
        return np.zeros(weights.shape[1])
    share: Floats = rarity @ weights / total
    return share
