"""What of a ranking is returned: diverse enough, and within a number of tokens."""

from collections.abc import Sequence

import numpy as np

from app.search.found import Result
from app.search.pool import Floats

BYTES_A_TOKEN = 4
"""Of UTF-8: what common tokenizers need for English; a Chinese character counts for most of one."""


def tokens_of(value: str) -> int:
    """Return about how many tokens an item's value takes, as JSON text."""
    return -(-len(value.encode()) // BYTES_A_TOKEN)


def within_tokens(results: Sequence[Result], budget: int) -> list[Result]:
    """Return the results whose values fit, best first; one that does not fit is left out."""
    kept = []
    for result in results:
        tokens = tokens_of(result.row["value"])
        if tokens <= budget:
            kept.append(result)
            budget -= tokens
    return kept


def diversified(
    score: Floats, vectors: Floats, diversity: float, count: int, *, pinned: int = 0
) -> list[int]:
    """Return the places of `count` results by maximal marginal relevance.

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
