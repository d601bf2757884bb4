"""The questions of the retrieval benchmark are fair and complete."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import Stemmer  # type: ignore[import-not-found]  # it has no stubs

DATA = Path(__file__).parents[1] / "benchmarks/probe_data"
LONG = "long-documents"
CATEGORIES = {
    "identifiers",
    "languages",
    LONG,
    "names",
    "negation",
    "numbers",
    "paraphrase",
    "rare-words",
}
LANGUAGES = {"de", "es", "fr", "zh", "ja", "ko", "ru", "th"}
FUNCTION_WORDS = """
    a an and any anybody are at be been before by can did do does doesn for from has have he her his
    how i in is it its not of off on one or s she somebody t that the their there they to two up was
    what when where which while who whose will with you
"""

per_category = pytest.mark.parametrize("category", sorted(CATEGORIES))


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    assert not repeated
    return dict(pairs)


def probes(category: str) -> Any:
    text = (DATA / f"{category}.json").read_text()
    return json.loads(text, object_pairs_hook=without_repetition)


def content_words(text: str) -> set[str]:
    words = set(re.findall(r"\w+", text.lower())).difference(FUNCTION_WORDS.split())
    return set(Stemmer.Stemmer("english").stemWords(list(words)))


def test_every_file_is_a_category() -> None:
    assert {path.stem for path in DATA.glob("*.json")} == CATEGORIES


@per_category
def test_a_category_has_enough_of_distinct_memories_and_queries(category: str) -> None:
    data = probes(category)
    queries, memories = data["queries"], data["memories"]
    assert 80 <= len(memories) <= 200
    assert len(queries) >= 25
    assert len({query["query"] for query in queries}) == len(queries)
    assert len(set(memories.values())) == len(memories)
    for query in queries:
        expected = query["expected"]
        assert expected
        assert len(set(expected)) == len(expected)
        assert memories.keys() >= {*expected, query.get("opposite", expected[0])}
        assert query.get("opposite") not in expected


def test_a_negation_has_an_opposite() -> None:
    queries = probes("negation")["queries"]
    assert all("opposite" in query for query in queries)


def test_a_paraphrase_shares_no_word_with_its_answer_and_at_most_one_with_others() -> None:
    data = probes("paraphrase")
    for query in data["queries"]:
        words = content_words(query["query"])
        for key, text in data["memories"].items():
            shared = words & content_words(text)
            assert len(shared) <= (key not in query["expected"]), (query["query"], text)


def test_every_language_is_asked() -> None:
    expected = [key for query in probes("languages")["queries"] for key in query["expected"]]
    asked = Counter(key.partition("-")[0] for key in expected)
    assert asked.keys() == LANGUAGES
    assert min(asked.values()) >= 5


def test_long_documents_are_long_and_answer_in_their_middle_half() -> None:
    data = probes(LONG)
    long = [n for n in (len(text.split()) for text in data["memories"].values()) if n >= 600]
    assert len(long) >= 12
    assert max(long) <= 1500
    for query in data["queries"]:
        (key,) = query["expected"]
        text = data["memories"][key]
        assert len(text.split()) >= 600
        assert text.count(query["answer"]) == 1
        assert 0.25 <= text.index(query["answer"]) / len(text) <= 0.75
