"""From a scope to the items worth ranking: all of a small one, the promising of a large one."""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.db.database import Connection
from app.search.gathering import Asked, gather_chosen, gather_scope
from app.search.large_scopes import nearest_by_index, neighbours, passing, pinned_items
from app.search.lexical import Statistics
from app.search.pool import Pool
from app.search.scope import Scope
from app.search.surveying import Survey, survey

Way: TypeAlias = Literal["exact", "index", "filter_first"]

_INDEXED_SHARE = 0.02
"""Of all items: a scope and filter that leave less are applied first, and the rest compared.

The index would have to walk past fifty passages for each one it may return, which takes as long
and finds fewer of the nearest (docs/decisions/0006-exact-or-index.md).
"""

_NO_LIMIT = 2**40

_LEAST_REACH = 100
"""Passages asked of each list: what is middling in both may come first together."""

_FIRST_REACH = 4
"""Passages asked of a list for each result wanted: items may have several."""

_LAST_REACH = 64
"""Beyond this, few items with very many passages crowd the rest out: compare every one."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is ranked, how it was found, and in which list a large scope's items were."""

    pool: Pool
    statistics: Statistics
    way: Way
    nearest: frozenset[int] = field(default_factory=frozenset)
    worded: frozenset[int] = field(default_factory=frozenset)


async def find_candidates(
    connection: Connection, scope: Scope, asked: Asked, *, wanted: int, largest: int
) -> Candidates:
    """Return the items worth ranking for the first `wanted` results.

    A scope of at most `largest` items and passages is read in one statement. For a larger one a
    survey decides whether its filter leaves so little that all of it can be compared; otherwise
    the indexes name the candidates, which are then read with their neighbours.
    """
    everything = await gather_scope(connection, scope, asked, largest=largest)
    if everything is not None:
        return Candidates(*everything, "exact")
    surveyed = await survey(connection, scope, asked)
    if surveyed.share >= _INDEXED_SHARE:
        named = await _by_index(connection, scope, asked, surveyed, wanted)
        if named is not None:
            return named
    return await _all_that_passes(connection, scope, asked, surveyed)


async def _all_that_passes(
    connection: Connection, scope: Scope, asked: Asked, surveyed: Survey
) -> Candidates:
    """Return all that a large scope's filter leaves, or all of it where there is no filter."""
    if scope.keeps_all:
        everything = await gather_scope(connection, scope, asked, largest=_NO_LIMIT)
        assert everything is not None  # noqa: S101  # nothing is larger
        return Candidates(*everything, "exact")
    pool = await gather_chosen(connection, scope, asked, None)
    if pool.items["thread"].any():
        kept = {int(item_id) for item_id in pool.items["id"]}
        beside = await neighbours(connection, kept)
        pool = await gather_chosen(connection, scope, asked, sorted({*kept, *beside}))
    return Candidates(pool, surveyed.statistics, "filter_first")


async def _by_index(
    connection: Connection, scope: Scope, asked: Asked, surveyed: Survey, wanted: int
) -> Candidates | None:
    """Ask both lists for more and more; None when they cannot name enough."""
    reach = _FIRST_REACH
    pinned = await pinned_items(connection, scope)
    while reach <= _LAST_REACH:
        passages = max(reach * wanted, _LEAST_REACH)
        nearest = await nearest_by_index(connection, scope, asked, passages=passages)
        worded = surveyed.best_by_words(math.ceil(passages / surveyed.share))
        worded = (await passing(connection, scope, worded))[:passages]
        named = {*nearest, *worded, *pinned}
        chosen = sorted({*named, *await neighbours(connection, named)})
        pool = await gather_chosen(connection, scope, asked, chosen)
        enough = pool.items["passes"].sum() >= wanted
        if enough or (asked.vector is None and len(worded) < passages):
            return Candidates(
                pool, surveyed.statistics, "index", frozenset(nearest), frozenset(worded)
            )
        if asked.vector is not None and len(nearest) < passages:
            return None
        reach *= 4
    return None
