"""BM25 over pools built by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.search.candidate_set import Floats
from app.search.scoring import K1, B, count_statistics, coverage, word_weights
from tests.search.candidate_sets import (
    candidate_set,
    counted,
    hit,
    hit_rows,
    item,
    of_texts,
    passage,
    passage_rows,
)

texts = st.lists(
    st.lists(st.sampled_from("abcdef"), max_size=8).map(" ".join), min_size=1, max_size=8
)
queries = st.sets(st.sampled_from("abcdxy"), min_size=1).map(sorted).map(" ".join)


def bm25_by_the_book(texts: Sequence[str], query: str) -> list[float]:
    """Robertson and Zaragoza's sum over the query's words, over the most that it could be."""
    corpus = [text.split() for text in texts]
    average = max(sum(map(len, corpus)) / len(corpus), 1.0)
    idf = {}
    for word in query.split():
        have = sum(word in words for words in corpus)
        idf[word] = math.log(1 + (len(corpus) - have + 0.5) / (have + 0.5))
    scores = []
    for words in corpus:
        score = 0.0
        for word, rarity in idf.items():
            frequency = words.count(word)
            score += (
                rarity * frequency / (frequency + K1 * (1 - B + B * len(words) / average))
                if frequency
                else 0
            )
        scores.append(score / sum(idf.values()))
    return scores


def test_known_is_the_share_of_the_rarity_of_words_that_stand_in_the_scope() -> None:
    _, statistics = of_texts(["ramen", "ramen tea", "tea", "soup"], "ramen pizza")
    ramen, pizza = math.log(1 + 2.5 / 2.5), math.log(1 + 4.5 / 0.5)
    assert statistics.known == pytest.approx(ramen / (ramen + pizza))
    for query, known in (("ramen tea", 1), ("pizza pasta", 0), ("", 0)):
        assert of_texts(["ramen", "tea"], query)[1].known == known


@given(texts, queries)
def test_coverage_is_bm25_by_the_book(texts: list[str], query: str) -> None:
    made, statistics = of_texts(texts, query)
    weights = word_weights(made, statistics)
    covered: Floats = coverage(weights, statistics.rarity)
    assert covered == pytest.approx(bm25_by_the_book(texts, query))
    assert ((covered >= 0) & (covered < 1)).all()


def test_of_several_forms_of_a_word_the_best_counts() -> None:
    one = hit(0, 1, frequency=1, length=5)
    more = hit(0, 1, frequency=3, length=5)
    for hits in ([one, more], [more, one]):
        made = candidate_set([item(1)], [passage(1, length=5)], hits)
        weight = word_weights(made, counted(made, 1))
        assert weight.tolist() == [[pytest.approx(3 / 3.9)]]


def test_a_passage_with_two_forms_of_a_word_is_counted_once() -> None:
    hits = hit_rows(hit(0, 1), hit(0, 1), hit(0, 1, 1), hit(1, 2))
    statistics = count_statistics(passage_rows(passage(1), passage(1, 1), passage(2)), hits, 3)
    assert statistics.passages_with.tolist() == [2, 1, 0]


def test_count_statistics_an_empty_scope_are_zero() -> None:
    statistics = count_statistics(passage_rows(), hit_rows(), 2)
    assert (statistics.passages, statistics.average_length) == (0, 0)
    assert statistics.passages_with.tolist() == [0, 0]
    assert np.isfinite(statistics.rarity).all()
