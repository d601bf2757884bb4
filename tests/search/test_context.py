"""What words a turn gains from its conversation; weights and threads built by hand."""

import math
import random
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.search.scoring import SHARES, THREAD_SHARE, context_weights
from tests.search.candidate_sets import item, item_rows

NEXT, NEXT_BUT_ONE = SHARES
Turn = tuple[int, float]

turns = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.just(math.nan), st.integers(-3, 5).map(float))),
    min_size=1,
    max_size=9,
)


def gained_by_definition(own: Sequence[float], threads: Sequence[Turn]) -> list[float]:
    """Compare every item with every other: the best of what they say, by the share they pass on."""

    def share(one: Turn, other: Turn) -> float:
        if one[0] != other[0] or not one[0]:
            return 0
        if math.isnan(one[1]) or math.isnan(other[1]):
            return THREAD_SHARE
        turns = sorted({at for thread, at in threads if thread == one[0] and not math.isnan(at)})
        distance = abs(turns.index(one[1]) - turns.index(other[1]))
        return {0: NEXT, 1: NEXT, 2: NEXT_BUT_ONE}.get(distance, THREAD_SHARE)

    return [
        max((share(one, threads[m]) * own[m] for m in range(len(own)) if m != n), default=0)
        for n, one in enumerate(threads)
    ]


@settings(max_examples=100)
@given(turns, st.randoms())
def test_every_item_gains_the_best_that_another_passes_on(
    threads: list[Turn], chance: random.Random
) -> None:
    own = [[chance.choice([0, 0.2, 0.5, chance.random()]) for _ in threads] for _ in range(2)]
    items = item_rows(*(item(n, thread=t, position=at) for n, (t, at) in enumerate(threads)))
    gained = context_weights(np.array(own, np.float64), items)
    for word in range(2):
        assert gained[word] == pytest.approx(gained_by_definition(own[word], threads))


@pytest.mark.parametrize(("words", "items"), [(0, 0), (2, 0), (0, 1)])
def test_without_items_or_words_there_is_nothing_to_gain(words: int, items: int) -> None:
    rows = item_rows(*[item(1, thread=7)] * items)
    assert context_weights(np.zeros((words, items)), rows).shape == (words, items)


def test_a_thread_of_a_hundred_thousand_turns_takes_less_than_a_second() -> None:
    turns = 100_000
    items = item_rows(*(item(n, thread=7, position=n) for n in range(turns)))
    began = time.thread_time()
    context_weights(np.ones((3, turns)), items)
    assert time.thread_time() - began < 1
