"""The parts of a score, their blend, and the order of items; pools built by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.candidate_set import CandidateSet, Floats
from app.search.scoring import (
    HalfLives,
    Mode,
    Relevance,
    ScoredItems,
    ScoreParts,
    Weights,
    blend,
    recency,
    score_items,
    score_relevance,
    strength,
)
from tests.search.candidate_sets import candidate_set, counted, item, passage

HALF_LIVES = HalfLives(30, 7)
NAMES = ("relevance", "recency", "importance", "strength")
NOW = 1e9

shares = st.floats(0, 1)
half_lives = st.floats(1e-3, 36_500)
weights = st.builds(Weights, *[st.floats(0, 1000).filter(lambda w: w == 0 or w > 1e-6)] * 4).filter(
    lambda w: w.total > 0
)
parts = st.builds(ScoreParts, *[st.floats(0, 1).map(lambda value: np.array([value]))] * 4)


def found(made: CandidateSet, *, words: int = 0, mode: Mode = "hybrid") -> Relevance:
    return score_relevance(made, counted(made, words), mode)


def by_relevance(made: CandidateSet, of: Relevance, now: float = NOW) -> ScoredItems:
    return score_items(made, of, Weights(1, 0, 0, 0), HALF_LIVES, now)


def numbers(ranking: ScoredItems) -> list[int]:
    ids: list[int] = ranking.candidates.items["id"][ranking.order].tolist()
    return ids


def one(value: float) -> Floats:
    return np.array([value], np.float64)


@given(parts, weights)
def test_a_blend_lies_between_its_parts(of: ScoreParts, weighed: Weights) -> None:
    counting = [getattr(of, name)[0] for name in NAMES if getattr(weighed, name)]
    blended = blend(of, weighed)[0]
    assert min(counting) - 1e-9 <= blended <= max(counting) + 1e-9


@given(parts, weights, st.sampled_from(NAMES), shares)
def test_a_blend_grows_with_every_part(
    of: ScoreParts, weighed: Weights, name: str, value: float
) -> None:
    changed = replace(of, **{name: one(value)})
    low, high = sorted((of, changed), key=lambda those: float(getattr(those, name)[0]))
    assert blend(low, weighed)[0] <= blend(high, weighed)[0]


@given(half_lives, st.integers(-1, 20))
def test_recency_is_halved_with_every_half_life(half_life: float, times: int) -> None:
    assert recency(one(times * half_life), half_life) == pytest.approx(0.5 ** max(times, 0))


def test_strength_of_what_was_used_once_is_halved_with_the_half_life() -> None:
    assert strength(one(1), one(7), 7) == pytest.approx(0.5)
    assert strength(one(8), one(28), 7) == pytest.approx(0.5)


def test_items_that_were_given_no_importance_count_as_middling() -> None:
    made = candidate_set([item(1), item(2, importance=0.9)], [passage(1), passage(2)])
    ranking = score_items(made, found(made), Weights(0, 0, 1, 0), HALF_LIVES, NOW)
    assert ranking.score.tolist() == [0.5, 0.9]
    assert numbers(ranking) == [2, 1]


def test_find_pinned_come_first_then_by_score_then_the_later_then_the_older_item() -> None:
    made = candidate_set(
        [
            item(1, pinned=True),
            item(2),
            item(3, time=5),
            item(4),
            item(5),
            item(6, pinned=True),
        ],
        [passage(n, similarity=s) for n, s in ((1, 0.1), (2, 0.5), (3, 0.5), (4, 0.9), (5, 0.5))],
    )
    assert numbers(by_relevance(made, found(made))) == [1, 6, 4, 3, 2, 5]
