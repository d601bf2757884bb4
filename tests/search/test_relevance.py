"""How well items answer a query, by meaning and by words; pools built by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.candidate_set import CandidateSet
from app.search.scoring import LEXICAL_SHARE, Mode, Relevance, score_relevance
from tests.search.candidate_sets import candidate_set, counted, hit, item, of_texts, passage


def found(made: CandidateSet, *, words: int = 0, mode: Mode = "hybrid") -> Relevance:
    return score_relevance(made, counted(made, words), mode)


@pytest.mark.parametrize(
    ("mode", "score"), [("vector", [-0.4, 1]), ("text", [1 / 1.9, 0]), ("hybrid", [0.289474, 0.45])]
)
def test_each_mode_scores_by_what_it_compares(mode: Mode, score: list[float]) -> None:
    made, statistics = of_texts(["a b", "b b"], "a", similarities=[-0.4, 1.0])
    assert score_relevance(made, statistics, mode).score == pytest.approx(score, abs=1e-6)


def test_without_words_or_vectors_the_other_counts_alone() -> None:
    made, statistics = of_texts(["a", "b"], "a")
    assert score_relevance(made, statistics, "hybrid").score.tolist() == pytest.approx([1 / 1.9, 0])
    made, statistics = of_texts(["a", "b"], "", similarities=[0.4, -0.3])
    assert score_relevance(made, statistics, "hybrid").score.tolist() == [0.4, 0]


def test_a_word_that_stands_nowhere_leaves_its_share_to_meaning() -> None:
    made, statistics = of_texts(["a", "b"], "a x", similarities=[0.4, 1.0])
    of = score_relevance(made, statistics, "hybrid")
    known = math.log(2) / (math.log(2) + math.log(6))
    meaning = 1 - LEXICAL_SHARE * known
    assert of.lexical.tolist() == pytest.approx([known / 1.9, 0])
    assert of.score.tolist() == pytest.approx(
        [LEXICAL_SHARE * known / 1.9 + meaning * 0.4, meaning]
    )


def test_an_item_has_a_word_that_stands_in_any_of_its_passages() -> None:
    made = candidate_set(
        [item(1, thread=7, position=1), item(2, thread=7, position=2), item(3)],
        [passage(1, 0, similarity=0.9), passage(1, 1), passage(2), passage(3)],
        [hit(0, 1, 1)],
    )
    of = found(made, words=1)
    assert made.passages["ordinal"][of.passage[0]] == 0
    assert of.has_word.tolist() == [True, False, False]


def test_an_item_earns_what_its_best_passage_does() -> None:
    made = candidate_set(
        [item(1), item(2)],
        [
            passage(1, 0, similarity=0.2),
            passage(2, 0, similarity=0.5),
            passage(1, 1, similarity=0.7),
        ],
    )
    of = found(made)
    assert of.score.tolist() == [0.7, 0.5]
    assert made.passages["ordinal"][of.passage].tolist() == [1, 0]


def test_passages_and_hits_without_their_item_are_left_out() -> None:
    made = candidate_set([item(2)], [passage(1), passage(2)], [hit(0, 1), hit(0, 2), hit(0, 2, 1)])
    assert made.passages["item_id"].tolist() == [2]
    assert made.hits["item_id"].tolist() == [2]


@given(
    st.lists(st.text("abcx ", max_size=9), min_size=1, max_size=6),
    st.lists(st.one_of(st.just(math.nan), st.floats(-1, 1)), min_size=6, max_size=6),
)
def test_relevance_is_in_0_to_1_or_not_a_number(
    texts: list[str], similarities: list[float]
) -> None:
    made, statistics = of_texts(texts, "a b", similarities=similarities[: len(texts)])
    for mode in ("hybrid", "text"):
        score = score_relevance(made, statistics, mode).score
        assert ((score >= 0) & (score <= 1)).all()
