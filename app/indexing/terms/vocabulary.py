"""The terms of passages and of queries."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from app.indexing.terms.languages import (
    DEFAULT,
    LATIN_LANGUAGES,
    check_language,
    is_stop_word,
    language_of_word,
    likely_languages,
)
from app.indexing.terms.stemming import fold, stem
from app.indexing.terms.tokens import (
    MAX_CHARACTERS,
    grams_of_passage,
    grams_of_query,
    is_unspaced,
    tokens_of,
    words_of,
)

MAX_QUERY_WORDS = 32

# Tokens up to this length are remembered, so many of them: 10 to 20 MB.
_REMEMBERED_CHARACTERS = 32
_REMEMBERED = 16_384

_NOT_STEMMED = re.compile(r"[\d!-/:-@\[-`{-~]")


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of a query, lower-cased, and the terms that may stand for it in passages."""

    word: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Turns text into terms, in one language or (None) in the one each text is taken for.

    Raises ValueError for a language that is not in LANGUAGES.
    """

    language: str | None = None

    def __post_init__(self) -> None:
        check_language(self.language)

    def of_passage(self, text: str) -> dict[str, int]:
        """Return the terms of a passage in order of first appearance, and how often each occurs."""
        tokens = tokens_of(text)
        taken = self.language or next(iter(likely_languages(tokens, least=1)), DEFAULT)
        return dict(Counter(chain.from_iterable(_passage_terms(token, taken) for token in tokens)))

    def of_query(self, text: str) -> list[QueryWord]:
        """Return the words of a query in order, the first 32 of different terms.

        Where its function words do not tell its language for sure, a word may be in any.
        """
        tokens = tokens_of(text)
        taken, languages = self._query_languages(tokens)
        found: dict[tuple[str, ...], QueryWord] = {}
        different = dict.fromkeys(tokens)
        for word in chain.from_iterable(_query_words(token, taken) for token in different):
            terms = _alternatives(word, languages)
            if terms and terms not in found:
                found[terms] = QueryWord(word, terms)
                if len(found) == MAX_QUERY_WORDS:
                    break
        return list(found.values())

    def _query_languages(self, tokens: list[str]) -> tuple[str, tuple[str, ...]]:
        """Return the language that function words are left out in, and those of the other words."""
        if self.language:
            return self.language, (self.language,)
        likely = likely_languages(tokens, least=2)
        if not likely:
            return DEFAULT, LATIN_LANGUAGES
        return likely[0], tuple(dict.fromkeys((*likely, DEFAULT)))


def _passage_terms(token: str, taken: str) -> list[str] | tuple[str, ...]:
    if is_unspaced(token):
        return grams_of_passage(token)
    if len(token) > _REMEMBERED_CHARACTERS:
        return _terms(token, taken)
    return _remembered_terms(token, taken)


def _terms(token: str, taken: str) -> tuple[str, ...]:
    terms = (_term(word, taken) for word in _content_words(token, taken))
    return tuple(dict.fromkeys(term for term in terms if term))


_remembered_terms = lru_cache(_REMEMBERED)(_terms)


def _query_words(token: str, taken: str) -> list[str] | tuple[str, ...]:
    if is_unspaced(token):
        return grams_of_query(token)
    if len(token) > _REMEMBERED_CHARACTERS:
        return _content_words(token, taken)
    return _remembered_words(token, taken)


def _content_words(token: str, taken: str) -> tuple[str, ...]:
    """Return the words of a token without function words and parts of one character."""
    whole, *parts = words_of(token) or [""]
    if not whole or is_stop_word(whole, taken):
        return ()
    content = [part for part in parts if not is_stop_word(part, taken)]
    contracted = "'" in whole and len(content) < len(parts)  # l'amour is amour, they'll is nothing
    kept = [part[:MAX_CHARACTERS] for part in content if len(part) > 1]
    return tuple(kept if contracted else [whole[:MAX_CHARACTERS], *kept])


_remembered_words = lru_cache(_REMEMBERED)(_content_words)


@lru_cache(_REMEMBERED)
def _alternatives(word: str, languages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the terms of a word in each language, as it is written and without diacritics."""
    if is_unspaced(word):
        return (word,)
    forms = [form for form in dict.fromkeys((word, fold(word))) if form]
    terms = (_term(form, language) for language in languages for form in forms)
    return tuple(dict.fromkeys(term for term in terms if term))


@lru_cache(_REMEMBERED)
def _term(word: str, taken: str) -> str:
    """Return the stem of a word without diacritics; identifiers and numbers have no stem."""
    language = language_of_word(word, taken)
    if language is None or _NOT_STEMMED.search(word):
        bare = fold(word)
    elif language == DEFAULT:
        bare = stem(fold(word), DEFAULT)  # English text often leaves diacritics out
    else:
        bare = fold(stem(word, language))
    return bare[:MAX_CHARACTERS]
