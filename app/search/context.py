"""Conversation context: what was said shortly before and after a turn is part of what it is about.

Turns are short and lean on one another: "Yes, in May!" answers a question that names the subject.
So a word that stands in a neighbouring turn counts for this one too, by a smaller share.
"""

import numpy as np

from app.search.pool import Floats, Integers, Rows

SHARES = (0.7, 0.5)
"""Of a word that stands one and two turns away, and below anywhere in the same thread.

Tuned on LoCoMo: recall@10 is 0.73 to 0.745 for first shares of 0.5 to 0.8, and 0.69 without.
"""

THREAD_SHARE = 0.1


def nearby_weights(weights: Floats, items: Rows) -> Floats:
    """Return the weight that words (rows) gain in items (columns) from the rest of the thread.

    `weights` are the words' own in the items. Turns that share a position count as one.
    """
    nearby = np.zeros_like(weights)
    threaded = np.flatnonzero(items["thread"])
    if not len(threaded) or not len(weights):
        return nearby
    own, thread = weights[:, threaded], items["thread"][threaded]
    _, group = np.unique(thread, return_inverse=True)
    gained = THREAD_SHARE * _best_of_group(own, group)[:, group]
    placed = np.flatnonzero(~np.isnan(items["position"][threaded]))
    turns, turn = np.unique(
        np.stack([thread[placed], items["position"][threaded][placed].astype(np.int64)]),
        axis=1,
        return_inverse=True,
    )
    said = _shared_with_neighbours(_best_of_group(own[:, placed], turn.ravel()), turns[0])
    gained[:, placed] = np.maximum(gained[:, placed], said[:, turn.ravel()])
    nearby[:, threaded] = gained
    return nearby


def _best_of_group(weights: Floats, group: Integers) -> Floats:
    """Return the highest weight of each word (row) in each group (column)."""
    count = int(group.max()) + 1 if len(group) else 0
    best = np.zeros((len(weights), count))
    for row, of_word in zip(best, weights, strict=True):
        np.maximum.at(row, group, of_word)
    return best


def _shared_with_neighbours(said: Floats, thread: Integers) -> Floats:
    """Spread the words of turns (columns, in order of thread and position) to those beside them."""
    shared = SHARES[0] * said  # for others at the same position
    for distance, share in enumerate(SHARES, start=1):
        together = thread[distance:] == thread[:-distance]
        before, after = shared[:, :-distance], shared[:, distance:]
        np.maximum(after, share * together * said[:, :-distance], out=after)
        np.maximum(before, share * together * said[:, distance:], out=before)
    return shared
