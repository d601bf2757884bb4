import json
import math
from collections import defaultdict
from pathlib import Path

import pytest

from app.indexing.terms import Vocabulary

K1 = 0.9
B = 0.4


def ranked(passages: dict[str, dict[str, int]], vocabulary: Vocabulary, query: str) -> list[str]:
    lengths = {name: sum(terms.values()) for name, terms in passages.items()}
    mean = sum(lengths.values()) / len(lengths)
    scores: dict[str, float] = defaultdict(float)
    for word in vocabulary.of_query(query):
        counts = {
            name: count
            for name, terms in passages.items()
            if (count := sum(terms.get(term, 0) for term in word.terms))
        }
        rarity = math.log(1 + (len(passages) - len(counts) + 0.5) / (len(counts) + 0.5))
        for name, count in counts.items():
            slowed = count + K1 * (1 - B + B * lengths[name] / mean)
            scores[name] += rarity * count * (K1 + 1) / slowed
    return sorted(scores, key=lambda name: -scores[name])


@pytest.mark.parametrize(
    ("name", "language"),
    [("german", None), ("german", "german"), ("chinese", None), ("japanese", None)],
)
def test_keyword_search_puts_the_right_passage_first(name: str, language: str | None) -> None:
    data = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary(language)
    passages = {key: vocabulary.of_passage(text) for key, text in data["passages"].items()}
    missed = [
        query["query"]
        for query in data["queries"]
        if ranked(passages, vocabulary, query["query"])[:1] != [query["expected"]]
    ]
    assert missed == []
