"""Stems of words, and words without their diacritics. Only this module knows PyStemmer."""

import re
import unicodedata
from functools import cache
from threading import Lock
from typing import Any

import Stemmer  # type: ignore[import-not-found]  # it has no stubs

_OTHER_NAMES = {"porter", "dutch_porter"}  # older algorithms for english and dutch

STEMMED_LANGUAGES: frozenset[str] = frozenset(Stemmer.algorithms()) - _OTHER_NAMES

# Diacritics of Latin, Greek and Cyrillic, Hebrew points, Arabic vowel signs and stretching.
# The marks of other scripts are letters to their readers and stay.
_DIACRITICS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]+"
)
_LETTERS = str.maketrans(
    {
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "\u0131": "i",
    }
)

_lock = Lock()  # a Stemmer must not be called by two threads at once


@cache
def _stemmer(language: str) -> Any:
    return Stemmer.Stemmer(language, 0)


def stem(word: str, language: str) -> str:
    """Return the snowball stem of a lower-cased word."""
    with _lock:
        result: str = _stemmer(language).stemWord(word)
    return result


def fold(word: str) -> str:
    """Return a lower-cased word without diacritics: café and cafe are one, so are über and uber."""
    if word.isascii():
        return word
    bare = _DIACRITICS.sub("", unicodedata.normalize("NFD", word))
    return unicodedata.normalize("NFC", bare.translate(_LETTERS))
