"""Scores of candidates: relevance by meaning, words, and conversation context, then the blend.

By words: BM25, the share of a query that a passage covers.

Conversation context: turns are short and depend on one another. "Yes, in May!" answers a question
that names the subject, so a word of a neighboring turn counts for this one too, by a smaller share.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from app.search.candidate_set import Booleans, CandidateSet, Floats, Integers, Rows, passage_number

K1 = 0.9
"""How soon repetitions of a word stop counting.

This and B are Anserini's defaults for short passages (Lin et al., 2016); on LoCoMo's turns K1 from
0.6 to 1.2 and B from 0.2 to 0.75 are within 0.01 of one another.
"""

B = 0.4
"""How much a passage that is longer than average is penalized."""

_WORD_BITS = 5
"""A query has at most 32 words."""

Mode: TypeAlias = Literal["hybrid", "vector", "text"]

LEXICAL_SHARE = 0.55
"""Share of words in the relevance, for a query all of whose words occur in the scope.

On LoCoMo recall@10 is 0.69 for shares of 0.45 to 0.6, 0.64 for words alone and 0.49 for meaning
alone.
"""

SHARES = (0.7, 0.5)
"""Share of its weight that a word of a turn one and two places away adds.

Tuned on LoCoMo: recall@10 is 0.73 to 0.745 for first shares of 0.5 to 0.8, and 0.69 without.
"""

THREAD_SHARE = 0.1
"""The same for a word anywhere else in the thread."""

SECONDS_A_DAY = 86_400

NEUTRAL_IMPORTANCE = 0.5
"""Importance of items that have none."""


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


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of a score counts; only their proportions matter."""

    relevance: float = 1.0
    recency: float = 0.0
    importance: float = 0.0
    strength: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all four."""
        return self.relevance + self.recency + self.importance + self.strength


@dataclass(frozen=True, slots=True)
class HalfLives:
    """Days after which a part is worth half."""

    recency: float = 30.0
    strength: float = 7.0


@dataclass(frozen=True, slots=True)
class Relevance:
    """For each item of a candidate set, the scores of its best passage; NaN if it has no passage.

    `words` is the weight of each word (row) in that passage, `nearby` what the thread added, and
    `has_word` whether any passage of the item has any word.
    """

    score: Floats
    similarity: Floats
    lexical: Floats
    passage: Integers
    words: Floats
    nearby: Floats
    has_word: Booleans


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """The parts of each item's score, each in 0 to 1."""

    relevance: Floats
    recency: Floats
    importance: Floats
    strength: Floats


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """Candidates with their scores, and the indices of their items in order, best first."""

    candidates: CandidateSet
    relevance: Relevance
    score: Floats
    order: Integers

    @property
    def sort_keys(self) -> tuple[Floats, ...]:
        """The keys of the order, ascending and the most significant first.

        Pinned items come first, then higher scores, later times, and older items.
        """
        return _sort_keys(self.candidates, self.score)


def score_relevance(candidates: CandidateSet, statistics: Statistics, mode: Mode) -> Relevance:
    """Score all passages and give each item the score of its best."""
    own = word_weights(candidates, statistics)
    by_item = np.zeros((len(own), len(candidates.items)))
    for row, of_word in zip(by_item, own, strict=True):
        np.maximum.at(row, candidates.item_of, of_word)
    nearby = context_weights(by_item, candidates.items)[:, candidates.item_of]
    lexical = coverage(np.maximum(own, nearby), statistics.rarity)
    similarity = candidates.passages["similarity"]
    score = _mix(similarity, lexical, mode, known=statistics.known)
    best = _best_passages(score, coverage(own, statistics.rarity), candidates)
    return Relevance(
        score=_take(score, best, np.nan),
        similarity=_take(similarity, best, np.nan),
        lexical=_take(lexical, best, np.nan),
        passage=best,
        words=_take(own, best, 0.0),
        nearby=_take(nearby, best, 0.0),
        has_word=by_item.max(axis=0, initial=0.0) > 0,
    )


def _mix(similarity: Floats, lexical: Floats, mode: Mode, *, known: float) -> Floats:
    """Mix both, each in 0 to 1; for passages without a vector, words are all there is.

    Words that occur nowhere in the scope say nothing: their part of the share goes to meaning.
    """
    if mode == "text":
        return lexical
    if mode == "vector":
        return similarity
    compared = ~np.isnan(similarity)
    meaning = np.clip(np.where(compared, similarity, 0), 0, 1)
    mixed = LEXICAL_SHARE * lexical + (1 - LEXICAL_SHARE * known) * meaning
    # A word that was unknown on the page that a cursor came with may occur since.
    return np.where(compared, np.minimum(mixed, 1), lexical)


def _best_passages(score: Floats, own: Floats, candidates: CandidateSet) -> Integers:
    """Return each item's best passage, of equals the one with more words itself; -1 for none."""
    best = np.full(len(candidates.items), -1)
    comparable = np.where(np.isnan(score), -np.inf, score)
    order = np.lexsort((-candidates.passages["ordinal"], own, comparable, candidates.item_of))
    best[candidates.item_of[order]] = order  # the last one written, and so the best, stays
    return best


def _take(values: Floats, best: Integers, missing: float) -> Floats:
    """Return the values (the last axis is passages) of the best passages."""
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], len(best)), missing)
    return np.where(best >= 0, values[..., best], missing)


def context_weights(weights: Floats, items: Rows) -> Floats:
    """Return the weight that words (rows) gain in items (columns) from the rest of the thread.

    `weights` are the words' own in the items; an item's own words are not its context.
    """
    nearby = np.zeros_like(weights)
    threaded = np.flatnonzero(items["thread"])
    if not len(threaded) or not len(weights):
        return nearby
    own, thread = weights[:, threaded], items["thread"][threaded]
    _, group = np.unique(thread, return_inverse=True)
    gained = THREAD_SHARE * _best_of_others(own, group)
    placed = np.flatnonzero(~np.isnan(items["position"][threaded]))
    if len(placed):
        position = items["position"][threaded][placed].astype(np.int64)
        adjacent = _adjacent_weights(own[:, placed], thread[placed], position)
        gained[:, placed] = np.maximum(gained[:, placed], adjacent)
    nearby[:, threaded] = gained
    return nearby


def _adjacent_weights(own: Floats, thread: Integers, position: Integers) -> Floats:
    """Return the weights that items gain from others at their position and from adjacent turns."""
    both = np.stack([thread, position])
    turns, turn = np.unique(both, axis=1, return_inverse=True)
    turn = turn.ravel()
    best = np.stack([_best(of_word, turn, turns.shape[1]) for of_word in own])
    from_neighbors = _spread(best, turns[0])[:, turn]
    gained: Floats = np.maximum(from_neighbors, SHARES[0] * _best_of_others(own, turn))
    return gained


def _spread(weights: Floats, thread: Integers) -> Floats:
    """Return the weights that turns (columns, in order of thread and position) gain from others."""
    gained = np.zeros_like(weights)
    for distance, share in enumerate(SHARES, start=1):
        together = thread[distance:] == thread[:-distance]
        before, after = gained[:, :-distance], gained[:, distance:]
        np.maximum(after, share * together * weights[:, :-distance], out=after)
        np.maximum(before, share * together * weights[:, distance:], out=before)
    return gained


def _best_of_others(weights: Floats, group: Integers) -> Floats:
    """Return, for each word and item, the highest weight among the others of the item's group."""
    count = int(group.max()) + 1
    others = np.zeros_like(weights)
    for row, own in zip(others, weights, strict=True):
        best = _best(own, group, count)
        holds_best = own == best[group]
        second = _best(np.where(holds_best, 0, own), group, count)
        shared = np.bincount(group, holds_best, minlength=count) > 1
        row[:] = np.where(holds_best & ~shared[group], second[group], best[group])
    return others


def _best(weights: Floats, group: Integers, count: int) -> Floats:
    best = np.zeros(count)
    np.maximum.at(best, group, weights)
    return best


def score_parts(
    candidates: CandidateSet, relevance: Floats, half_lives: HalfLives, now: float
) -> ScoreParts:
    """Return every part for the candidates' items; `now` in seconds since 1970."""
    importance = candidates.items["importance"]
    uses, last_used_at = _uses_of(candidates)
    return ScoreParts(
        relevance=np.nan_to_num(relevance),
        recency=recency((now - candidates.items["time"]) / SECONDS_A_DAY, half_lives.recency),
        importance=np.where(np.isnan(importance), NEUTRAL_IMPORTANCE, importance),
        strength=strength(uses, (now - last_used_at) / SECONDS_A_DAY, half_lives.strength),
    )


def recency(age: Floats, half_life: float) -> Floats:
    """Return 1 for a time just now, halved with every half-life; both in days."""
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


def blend(parts: ScoreParts, weights: Weights) -> Floats:
    """Return the weighted mean of the parts: in 0 to 1 if they are."""
    weighted: Floats = (
        weights.relevance * parts.relevance
        + weights.recency * parts.recency
        + weights.importance * parts.importance
        + weights.strength * parts.strength
    )
    return weighted / weights.total


def _uses_of(candidates: CandidateSet) -> tuple[Floats, Floats]:
    """Return how often and when each item was last used; 0 for items never used."""
    items = candidates.items
    uses, last = np.zeros(len(items)), np.zeros(len(items))
    if len(items) and len(candidates.uses):
        indices = np.searchsorted(items["id"], candidates.uses["item_id"])
        indices = np.minimum(indices, len(items) - 1)
        known = items["id"][indices] == candidates.uses["item_id"]
        uses[indices[known]] = candidates.uses["uses"][known]
        last[indices[known]] = candidates.uses["last_used_at"][known]
    return uses, last


def score_items(
    candidates: CandidateSet,
    relevance: Relevance,
    weights: Weights,
    half_lives: HalfLives,
    now: float,
) -> ScoredItems:
    """Score and order the candidates' items; `now` in seconds since 1970."""
    if weights.relevance == weights.total:
        score = relevance.score  # NaN if nothing was compared
    else:
        score = blend(score_parts(candidates, relevance.score, half_lives, now), weights)
    # Lower than 0, a cosine has nothing to lose.
    score = np.where(score > 0, score * candidates.items["factor"], score)
    # Rounded, so that the last bit does not decide a comparison with a cursor.
    score = np.round(score, 9)
    order = np.lexsort(_sort_keys(candidates, score)[::-1])
    return ScoredItems(candidates, relevance, score, order)


def _sort_keys(candidates: CandidateSet, score: Floats) -> tuple[Floats, ...]:
    ranked = np.where(np.isnan(score), -np.inf, score)
    items = candidates.items
    return ~items["pinned"], -ranked, -items["time"], items["id"]


def select_eligible(
    scored: ScoredItems, *, min_score: float | None, matched_only: bool
) -> Integers:
    """Return the items that may be returned, best first: good enough and, if asked, with a word."""
    items = scored.candidates.items
    order: Integers = scored.order[items["passes"][scored.order]]
    if min_score is not None:
        pinned = items["pinned"][order]
        order = order[pinned | (np.nan_to_num(scored.score[order], nan=-1.0) >= min_score)]
    if matched_only:
        order = order[scored.relevance.has_word[order]]
    return order


def diversify(
    score: Floats, vectors: Floats, diversity: float, count: int, *, pinned: int = 0
) -> list[int]:
    """Return the indices of `count` results by maximal marginal relevance.

    Carbonell and Goldstein (1998): each next one has the highest (1 - diversity) x score -
    diversity x similarity to the nearest that was chosen before. `vectors` are unit rows. The
    first `pinned` results keep their places.
    """
    chosen: list[int] = []
    remaining = np.ones(len(score), dtype=bool)
    nearest = np.zeros(len(score))
    for turn in range(min(count, len(score))):
        margin = (1 - diversity) * score - diversity * nearest
        best = turn if turn < pinned else int(np.argmax(np.where(remaining, margin, -np.inf)))
        chosen.append(best)
        remaining[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen
