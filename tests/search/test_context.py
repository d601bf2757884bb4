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


def gained(own: Sequence[float], threads: Sequence[Turn]) -> list[float]:
    """Return what one word gains in items of which each has a thread (0: none) and a position."""
    items = [item(n, thread=thread, position=at) for n, (thread, at) in enumerate(threads)]
    nearby: list[float] = context_weights(np.array([own], np.float64), item_rows(*items))[
        0
    ].tolist()
    return nearby


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


@settings(max_examples=50)
@given(turns, st.randoms())
def test_every_item_gains_the_best_that_another_passes_on(
    threads: list[Turn], chance: random.Random
) -> None:
    own = [chance.choice([0, 0.2, 0.5, chance.random()]) for _ in threads]
    assert gained(own, threads) == pytest.approx(gained_by_definition(own, threads))


def test_what_an_item_says_itself_is_not_its_context() -> None:
    assert gained([1], [(7, 0)]) == [0]
    assert gained([1, 0], [(7, 0), (7, 1)])[0] == 0
    assert gained([1, 0.5], [(7, 0), (7, 0)]) == pytest.approx([NEXT * 0.5, NEXT])
    assert gained([1, 1], [(7, math.nan), (7, math.nan)]) == pytest.approx([THREAD_SHARE] * 2)


def test_a_word_counts_for_the_turns_around_it_by_their_distance() -> None:
    nearby = gained([0, 0, 0, 1, 0, 0, 0], [(7, at) for at in range(7)])
    far, near = THREAD_SHARE, NEXT
    two_away = NEXT_BUT_ONE
    assert nearby[:3] == pytest.approx([far, two_away, near])
    assert nearby[4:] == pytest.approx([near, two_away, far])


def test_shares_fall_with_the_distance() -> None:
    assert 1 > NEXT > NEXT_BUT_ONE > THREAD_SHARE > 0


def test_the_strongest_neighbour_counts_not_their_sum() -> None:
    assert gained([1, 0, 0.5], [(7, 0), (7, 1), (7, 2)])[1] == pytest.approx(NEXT)


def test_items_without_a_thread_gain_nothing() -> None:
    assert gained([1, 0, 0], [(0, 0), (0, 1), (0, math.nan)]) == [0, 0, 0]


def test_other_threads_do_not_leak() -> None:
    assert gained([1, 0, 1], [(7, 0), (8, 1), (9, 2)])[1] == 0


def test_items_of_a_thread_without_a_position_gain_the_share_of_a_thread() -> None:
    nearby = gained([1, 0, 0], [(7, math.nan), (7, math.nan), (7, 3)])
    assert nearby[1:] == pytest.approx([THREAD_SHARE, THREAD_SHARE])


def test_items_at_the_same_position_are_beside_each_other() -> None:
    nearby = gained([1, 0, 0], [(7, 4), (7, 4), (7, 5)])
    assert nearby[1:] == pytest.approx([NEXT, NEXT])


def test_a_gap_in_the_positions_does_not_part_neighbours() -> None:
    assert gained([1, 0], [(7, 1), (7, 9)])[1] == pytest.approx(NEXT)


@pytest.mark.parametrize("words", [0, 2])
def test_without_items_there_is_nothing_to_gain(words: int) -> None:
    assert context_weights(np.zeros((words, 0)), item_rows()).shape == (words, 0)


def test_a_query_without_words_gains_nothing() -> None:
    assert context_weights(np.zeros((0, 1)), item_rows(item(1, thread=7))).shape == (0, 1)


@settings(max_examples=50)
@given(turns, st.randoms())
def test_the_order_of_items_does_not_matter(threads: list[Turn], chance: random.Random) -> None:
    own = [chance.random() for _ in threads]
    nearby = gained(own, threads)
    order = list(range(len(threads)))
    chance.shuffle(order)
    shuffled = gained([own[n] for n in order], [threads[n] for n in order])
    assert shuffled == [nearby[n] for n in order]


@settings(max_examples=50)
@given(turns, st.randoms())
def test_each_word_is_reckoned_by_itself(threads: list[Turn], chance: random.Random) -> None:
    one, other = [[chance.random() for _ in threads] for _ in range(2)]
    items = item_rows(*(item(n, thread=t, position=at) for n, (t, at) in enumerate(threads)))
    both = context_weights(np.array([one, other]), items)
    assert both.tolist() == [gained(one, threads), gained(other, threads)]


def test_a_thread_of_a_hundred_thousand_turns_takes_less_than_a_second() -> None:
    turns = 100_000
    items = item_rows(*(item(n, thread=7, position=n) for n in range(turns)))
    began = time.perf_counter()
    context_weights(np.ones((3, turns)), items)
    assert time.perf_counter() - began < 1
