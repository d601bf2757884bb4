"""Candidate sets built by hand, for tests of ranking that need no database."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from app.search.candidate_set import HITS, ITEMS, PASSAGES, USES, CandidateSet, RowFormat, Rows
from app.search.scoring import Statistics, count_statistics

Row = tuple[Any, ...]


def item(
    number: int,
    *,
    time: float = 0,
    importance: float = math.nan,
    pinned: bool = False,
    passes: bool = True,
    thread: int = 0,
    position: float = math.nan,
) -> Row:
    return number, time, importance, pinned, 1.0, passes, thread, position


def passage(item_id: int, ordinal: int = 0, *, length: int = 1, similarity: float = 0) -> Row:
    return item_id, ordinal, length, similarity


def hit(word: int, item_id: int, ordinal: int = 0, *, frequency: int = 1, length: int = 1) -> Row:
    return word, item_id, ordinal, frequency, length


def item_rows(*values: Row) -> Rows:
    return _rows(ITEMS, values)


def passage_rows(*values: Row) -> Rows:
    return _rows(PASSAGES, values)


def hit_rows(*values: Row) -> Rows:
    return _rows(HITS, values)


def candidate_set(
    items: Iterable[Row],
    passages: Iterable[Row] = (),
    hits: Iterable[Row] = (),
) -> CandidateSet:
    return CandidateSet.of(
        item_rows(*items), passage_rows(*passages), hit_rows(*hits), _rows(USES, ())
    )


def _rows(packing: RowFormat, values: Iterable[Row]) -> Rows:
    return np.array(list(values), packing.dtype)


def counted(of: CandidateSet, words: int) -> Statistics:
    return count_statistics(of.passages, of.hits, words)


def of_texts(
    texts: Sequence[str], query: str, *, similarities: Sequence[float] | None = None
) -> tuple[CandidateSet, Statistics]:
    """One item and passage for each text; words are what spaces part."""
    wanted, split = query.split(), [text.split() for text in texts]
    made = candidate_set(
        [item(n) for n in range(len(texts))],
        [
            passage(n, length=len(words), similarity=similarities[n] if similarities else math.nan)
            for n, words in enumerate(split)
        ],
        [
            hit(place, n, frequency=words.count(word), length=len(words))
            for n, words in enumerate(split)
            for place, word in enumerate(wanted)
            if word in words
        ],
    )
    return made, counted(made, len(wanted))
