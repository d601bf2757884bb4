"""Conversation context: what was said shortly before and after a turn is part of what it is about.

Turns are short and lean on one another: "Yes, in May!" answers a question that names the subject.
So a word that stands in a neighbouring turn counts for this one too, by a smaller share.
"""

import numpy as np

from app.search.packing import Rows
from app.search.pool import Floats, Integers

SHARES = (0.7, 0.5)
"""Of a word that stands one and two turns away, and below anywhere in the same thread.

Tuned on LoCoMo: recall@10 is 0.73 to 0.745 for first shares of 0.5 to 0.8, and 0.69 without.
"""

THREAD_SHARE = 0.1


def nearby_weights(weights: Floats, items: Rows) -> Floats:
    """Return the weight that words (rows) gain in items (columns) from the rest of the thread.

    `weights` are the words' own in the items; what an item says itself is not its context.
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
        said = _said_beside(own[:, placed], thread[placed], position)
        gained[:, placed] = np.maximum(gained[:, placed], said)
    nearby[:, threaded] = gained
    return nearby


def _said_beside(own: Floats, thread: Integers, position: Integers) -> Floats:
    """Return what items gain from those at their position and from the turns beside it."""
    both = np.stack([thread, position])
    turns, turn = np.unique(both, axis=1, return_inverse=True)
    turn = turn.ravel()
    best = np.stack([_best(of_word, turn, turns.shape[1]) for of_word in own])
    beside = _passed_on(best, turns[0])[:, turn]
    at_once: Floats = np.maximum(beside, SHARES[0] * _best_of_others(own, turn))
    return at_once


def _passed_on(said: Floats, thread: Integers) -> Floats:
    """Return what turns (columns, in order of thread and position) gain from those beside them."""
    gained = np.zeros_like(said)
    for distance, share in enumerate(SHARES, start=1):
        together = thread[distance:] == thread[:-distance]
        before, after = gained[:, :-distance], gained[:, distance:]
        np.maximum(after, share * together * said[:, :-distance], out=after)
        np.maximum(before, share * together * said[:, distance:], out=before)
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
