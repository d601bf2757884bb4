import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.indexing.terms import Vocabulary, is_stop_word, likely_languages, tokens_of

SIZE = 1 << 18

WORDS = st.sampled_from(
    [
        *("the", "with", "und", "nicht", "les", "avec", "una", "pero", "het", "niet", "och"),
        *("inte", "ikke", "nogle", "noen", "ja", "minä", "için", "w", "jest", "и", "die", "by"),
        *("Katzen", "houses", "maisons", "montañas", "bambini", "crianças", "bergen", "barnen"),
        *("børn", "kissat", "kediler", "dzieci", "кошки", "γάτες", "किताबें", "كتاب", "גיבור"),
        *("小猫睡觉", "カタカナ", "고양이", "แมว", "café", "can't", "l'eau", "O'Neil"),
        "HTTPServer",
        *("v2.1.3", "INV-7", "a_b", "1,000", ".net", "c++", "C:\\new", "\\n", "İ", "ŉ", "\ufb01ne"),
        *("\u0345", "\u02bcs", "2023-05-08T13:56:00Z"),
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.lists(WORDS).map(" ".join),
    st.lists(st.one_of(WORDS, st.sampled_from(list(" -_'.,:/\\+#@\u2019\u00ad\u200d")))).map(
        "".join
    ),
)
VOCABULARIES = st.sampled_from([None, "english", "german", "turkish", "russian", "tamil"]).map(
    Vocabulary
)


@given(TEXTS, VOCABULARIES)
def test_terms_are_well_formed_and_always_the_same(text: str, vocabulary: Vocabulary) -> None:
    counts = vocabulary.of_passage(text)
    words = vocabulary.of_query(text)
    terms = [*counts, *(term for word in words for term in word.terms)]
    assert all(0 < len(term) <= 64 for term in terms)
    assert not any("\0" in term or " " in term for term in terms)
    assert min(counts.values(), default=1) >= 1
    assert len(words) <= 32
    assert len({word.terms for word in words}) == len(words)
    assert vocabulary.of_passage(text) == counts
    assert vocabulary.of_query(text) == words


@given(TEXTS, VOCABULARIES)
def test_a_text_is_found_by_each_of_its_words(text: str, vocabulary: Vocabulary) -> None:
    terms = vocabulary.of_passage(text)
    likely = likely_languages(tokens_of(text), least=1)
    taken = vocabulary.language or (likely[0] if likely else "english")
    for word in vocabulary.of_query(text):
        # A contraction such as l'eau is a whole only where its language is not known.
        if not is_stop_word(word.word, taken) and "'" not in word.word:
            assert not terms.keys().isdisjoint(word.terms), word


@given(st.lists(WORDS, min_size=1), st.data())
def test_a_word_alone_finds_the_texts_it_is_in_whatever_their_language(
    words: list[str], data: st.DataObject
) -> None:
    vocabulary = Vocabulary()
    terms = vocabulary.of_passage(" ".join(words))
    alone = vocabulary.of_query(data.draw(st.sampled_from(words)))
    likely = likely_languages(tokens_of(" ".join(words)), least=1)
    for word in alone:
        if not is_stop_word(word.word, likely[0] if likely else "english") and "'" not in word.word:
            assert not terms.keys().isdisjoint(word.terms), word


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_plain_text_has_the_same_tokens_among_other_scripts(text: str) -> None:
    assert sorted(tokens_of(text + " é")) == sorted([*tokens_of(text + " "), "é"])


HOSTILE = {
    "letters": "a" * SIZE,
    "dots": "." * SIZE,
    "backslashes": "\\" * SIZE,
    "initials": "a." * (SIZE // 2),
    "version": "v" + "1." * (SIZE // 2) + "x",
    "unordered marks": "a" + "\u0315\u0300\u0334" * (SIZE // 6),
    "joiners": "a\u200d" * (SIZE // 4),
    "ligatures": "\ufdfa" * (SIZE // 3),
    "ideographs": "我喜欢猫" * (SIZE // 12),
    "identifiers": " ".join(f"{i * 0x9E3779B97F4A7C15 % 2**64:x}" for i in range(SIZE // 17)),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_quarter_mebibyte_of_anything_takes_seconds_at_most(text: str) -> None:
    started = time.thread_time()
    Vocabulary().of_passage(text)
    Vocabulary().of_query(text)
    # Quadratic time would be minutes.
    assert time.thread_time() - started < 5
