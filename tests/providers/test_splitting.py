import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.providers.embedder import spans, split_by_characters
from app.providers.local_embedder import LocalEmbedder, Words
from app.providers.model_files import MAX_TOKENS, published_file

WORDS = st.one_of(
    st.sampled_from(
        ["the", "cat.", "Why?", "naïveté", "[SEP]", "[PAD]", "你好。", "こんにちは", "안녕", "é!"]
    ),
    st.text(max_size=12),
    st.text(alphabet="abcxyz", min_size=60, max_size=130),
)
GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\t", "", "\x1c", "\x85", "\u2028", "\u3000"])
TEXTS = st.lists(st.tuples(WORDS, GAPS, st.integers(1, 80)), max_size=12).map(
    lambda parts: "".join((word + gap) * times for word, gap, times in parts)
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(published_file("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def assert_covers(text: str, cuts: list[tuple[int, int]]) -> None:
    covered = 0
    for start, end in cuts:
        assert start <= covered < end
        covered = end
    assert covered == len(text)


@settings(max_examples=40)
@given(TEXTS, st.integers(1, 60))
def test_passages_of_characters_fit_and_cover_the_text(text: str, limit: int) -> None:
    assert_covers(text, list(spans(text, lambda start: start + limit)))
    assert all(0 < len(passage) <= limit for passage in split_by_characters(text, limit))


@pytest.mark.slow
@settings(max_examples=40)
@given(TEXTS)
def test_passages_of_tokens_fit_and_cover_the_text(
    local: LocalEmbedder, tokenizer: Tokenizer, text: str
) -> None:
    words = Words(tokenizer.encode(text, add_special_tokens=False))
    assert_covers(text, list(spans(text, words.reach)))
    passages = local.split(text)
    assert all(len(tokenizer.encode(passage).ids) <= MAX_TOKENS for passage in passages)
    if text.strip() and len(text) <= 50_000 and len(tokenizer.encode(text).ids) <= MAX_TOKENS:
        assert passages == [text.strip()]


def test_neighbouring_passages_overlap_a_little() -> None:
    text = " ".join(f"word{number}" for number in range(200))
    first, second, *_ = split_by_characters(text, 200)
    shared = [word for word in first.split() if word in second.split()]
    assert 1 <= len(shared) <= 4


def test_a_sentence_end_is_preferred_to_a_space() -> None:
    passages = split_by_characters("one two three. four five six seven", 24)
    assert passages[0] == "one two three."
    assert split_by_characters("abcdefgh", 3) == ["abc", "def", "gh"]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["the quick brown fox. ", "你好", "x", "[SEP]"])
def test_a_megabyte_is_split_without_quadratic_work(local: LocalEmbedder, unit: str) -> None:
    began = time.process_time()
    local.split(unit * (2**20 // len(unit)))
    split_by_characters(unit * (2**20 // len(unit)), 6_000)
    assert time.process_time() - began < 20
