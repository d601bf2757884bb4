"""Selects the items worth scoring: all of a small scope, the promising ones of a large one."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from app.db.database import Connection
from app.search import repository
from app.search.candidate_set import CandidateSet, Rows, item_of_number, passage_number
from app.search.plan import Scope, ScoringQuery
from app.search.scoring import Statistics, coverage, saturation

Method: TypeAlias = Literal["exact", "index", "filter_first"]

_INDEXED_SHARE = 0.02
"""Share of all items below which a scope and filter are applied first, and the rest compared.

The index would have to walk past fifty passages for each one it may return, which takes as long
and finds fewer of the nearest (docs/decisions/0006-exact-or-index.md).
"""

_NO_LIMIT = 2**40

_LEAST_REACH = 100
"""Minimum passages read of each list: one that is mediocre in both may rank first overall."""

_FIRST_REACH = 4
"""Passages read of a list for each result: items may have several."""

_LAST_REACH = 64
"""Beyond this, a few items with very many passages crowd out the rest: compare every one."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The candidates, how they were found, and the lists in which the indexes named them."""

    candidates: CandidateSet
    statistics: Statistics
    method: Method
    by_vector: frozenset[int] = field(default_factory=frozenset)
    by_words: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class ScopeEstimate:
    """A scope too large to read: its share of all items, its statistics, its rarer hits."""

    share: float
    statistics: Statistics
    hits: Rows

    def best_by_words(self, items: int) -> list[int]:
        """Return the items whose passages have most of the query's rarer words, best first."""
        hits = self.hits
        found, passage_of = np.unique(passage_number(hits), return_inverse=True)
        weights = np.zeros((len(self.statistics.passages_with), len(found)))
        weight = saturation(
            hits["frequency"].astype(np.float64),
            hits["length"].astype(np.float64),
            self.statistics.average_length,
        )
        np.maximum.at(weights, (hits["word"], passage_of.ravel()), weight)
        score = coverage(weights, self.statistics.rarity)
        item_ids = item_of_number(found)[np.argsort(-score, kind="stable")]
        _, firsts = np.unique(item_ids, return_index=True)
        return [int(item_id) for item_id in item_ids[np.sort(firsts)[:items]]]


async def find_candidates(
    connection: Connection, scope: Scope, query: ScoringQuery, *, results: int, largest: int
) -> Retrieval:
    """Return the items worth scoring for the first `results` results.

    A scope of at most `largest` items and passages is read in one statement. For a larger one an
    estimate decides whether its filter leaves so little that all of it can be compared; otherwise
    the indexes name the candidates, which are then read with their neighbors.
    """
    everything = await repository.fetch_scope(connection, scope, query, largest=largest)
    if everything is not None:
        return Retrieval(*everything, "exact")
    estimate = await estimate_scope(connection, scope, query)
    if estimate.share >= _INDEXED_SHARE:
        retrieval = await _retrieve_by_index(connection, scope, query, estimate, results)
        if retrieval is not None:
            return retrieval
    return await _retrieve_all(connection, scope, query, estimate)


async def estimate_scope(
    connection: Connection, scope: Scope, query: ScoringQuery
) -> ScopeEstimate:
    """Sample the tables, count the hits of every term, and read those of the rarer ones."""
    sample = await repository.sample_scope(connection, scope, query.index_id)
    passages_with, hits = await repository.fetch_rare_hits(connection, scope, query)
    passages = max(sample.passages, float(passages_with.max(initial=1.0)))
    statistics = Statistics(passages, sample.average_length, passages_with)
    return ScopeEstimate(sample.share, statistics, hits)


async def _retrieve_all(
    connection: Connection, scope: Scope, query: ScoringQuery, estimate: ScopeEstimate
) -> Retrieval:
    """Return everything that a large scope's filter leaves, or the whole scope without one."""
    if scope.is_unfiltered:
        everything = await repository.fetch_scope(connection, scope, query, largest=_NO_LIMIT)
        assert everything is not None  # noqa: S101  # nothing is larger
        return Retrieval(*everything, "exact")
    candidates = await repository.fetch_candidates(connection, scope, query, None)
    if candidates.items["thread"].any():
        kept = {int(item_id) for item_id in candidates.items["id"]}
        neighbors = await repository.find_neighbors(connection, kept)
        candidates = await repository.fetch_candidates(
            connection, scope, query, sorted({*kept, *neighbors})
        )
    return Retrieval(candidates, estimate.statistics, "filter_first")


async def _retrieve_by_index(
    connection: Connection,
    scope: Scope,
    query: ScoringQuery,
    estimate: ScopeEstimate,
    results: int,
) -> Retrieval | None:
    """Read both lists further and further; return None if they cannot name enough items."""
    reach = _FIRST_REACH
    pinned = await repository.find_pinned(connection, scope)
    while reach <= _LAST_REACH:
        passages = max(reach * results, _LEAST_REACH)
        nearest = await repository.find_nearest(connection, scope, query, passages=passages)
        worded = estimate.best_by_words(math.ceil(passages / estimate.share))
        worded = (await repository.filter_ids(connection, scope, worded))[:passages]
        named = {*nearest, *worded, *pinned}
        chosen = sorted({*named, *await repository.find_neighbors(connection, named)})
        candidates = await repository.fetch_candidates(connection, scope, query, chosen)
        enough = candidates.items["passes"].sum() >= results
        if enough or (query.vector is None and len(worded) < passages):
            return Retrieval(
                candidates, estimate.statistics, "index", frozenset(nearest), frozenset(worded)
            )
        if query.vector is not None and len(nearest) < passages:
            return None
        reach *= 4
    return None
