"""Languages: which one a word or a text is in, their function words, and stems."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
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

DEFAULT = "english"
"""Language of Latin-script text whose function words do not decide it."""

LANGUAGES: tuple[str, ...] = tuple(sorted(STEMMED_LANGUAGES))
"""The languages a vocabulary may be set to."""

STOP_WORDS: Mapping[str, frozenset[str]] = {
    file.stem: frozenset(file.read_text(encoding="utf-8").split())
    for file in sorted((Path(__file__).parent / "stop_words").glob("*.txt"))
}
"""Function words by language, lower-cased; they are no terms of texts in that language."""

# Languages that are detected by function words; English first, because it wins a draw.
LATIN_LANGUAGES: tuple[str, ...] = (
    DEFAULT,
    *(language for language in STOP_WORDS if language not in {DEFAULT, "russian"}),
)

_SCRIPTS = (
    ("\u0370", "\u03ff", "greek"),
    ("\u0400", "\u052f", "cyrillic"),
    ("\u0530", "\u058f", "armenian"),
    ("\u0590", "\u05ff", "hebrew"),
    ("\u0600", "\u077f", "arabic"),
    ("\u0900", "\u097f", "devanagari"),
    ("\u0b80", "\u0bff", "tamil"),
    ("\u1e00", "\u1eff", "latin"),
    ("\u1f00", "\u1fff", "greek"),
)  # first and last letter; what comes before is latin

_LANGUAGE_BY_SCRIPT = {
    "latin": DEFAULT,
    "greek": "greek",
    "cyrillic": "russian",
    "armenian": "armenian",
    "arabic": "arabic",
    "devanagari": "hindi",
    "tamil": "tamil",
}

_SCRIPT_BY_LANGUAGE = {
    "greek": "greek",
    "russian": "cyrillic",
    "serbian": "cyrillic",
    "armenian": "armenian",
    "yiddish": "hebrew",
    "arabic": "arabic",
    "persian": "arabic",
    "hindi": "devanagari",
    "nepali": "devanagari",
    "tamil": "tamil",
}  # the others are written in latin

_SAMPLE = 200  # words of a text that decide its language
_LEAST_SHARE = 12  # one function word at least in this number of different words

# Function words elsewhere, but also function words, everyday words or names in English text:
# alone they do not show that a text is in another language.
_NOT_TELLING = STOP_WORDS[DEFAULT] | set(
    """
    ad ai al ale ali alt bare ben bin biz bo car chi ci com come comment con da dan de del della
    den der di die dig dos du ed el end era est fast fu go ha ham han hat hay hem hon im jo kim
    la las le les los ma mag man men met mi mia min mit na ned nun ole one par per plus pod pour
    quest sam sans sea sen sia sin solo son state sur ten ti till ton van vi von war ya yo
    """.split()  # noqa: SIM905 (a list of a hundred strings is harder to read)
)


def _languages_by_word() -> dict[str, tuple[str, ...]]:
    words = {word for language in LATIN_LANGUAGES for word in STOP_WORDS[language] if len(word) > 1}
    return {
        word: tuple(language for language in LATIN_LANGUAGES if word in STOP_WORDS[language])
        for word in words
    }


_LANGUAGES_OF = _languages_by_word()
_WORDS = _LANGUAGES_OF.keys()


def check_language(language: str | None) -> None:
    """Raise ValueError unless a vocabulary can be set to `language`."""
    if language is not None and language not in LANGUAGES:
        names = ", ".join(LANGUAGES)
        raise ValueError(f"no language {language!r}; leave it out to detect it, or use {names}")


def likely_languages(words: Sequence[str], *, least: int) -> tuple[str, ...]:
    """Return the languages that Latin-script text may be in, the likeliest first.

    The number of different function words of each decides; empty if these are fewer than
    `least`, or too few to decide.
    """
    different = {word.lower() for word in words[:_SAMPLE]}
    found = different & _WORDS
    marks = Counter(chain.from_iterable(_LANGUAGES_OF[word] for word in found))
    telling = {language for word in found - _NOT_TELLING for language in _LANGUAGES_OF[word]}
    telling.add(DEFAULT)
    best = max(marks[language] for language in telling)
    if best < least or best * _LEAST_SHARE < len(different):
        return ()
    close = [name for name in LATIN_LANGUAGES if name in telling and marks[name] * 2 > best]
    if best == 1 and len(close) > 1:
        return ()
    return tuple(sorted(close, key=lambda language: -marks[language]))


def language_of_word(word: str, taken: str) -> str | None:
    """Return the language of a word in a text taken for `taken`; None without a stemmer for it.

    A word in another script than the text's language is in its script's usual language.
    """
    script = _script(word)
    if script == _SCRIPT_BY_LANGUAGE.get(taken, "latin"):
        return taken
    return _LANGUAGE_BY_SCRIPT.get(script)


def _script(word: str) -> str:
    first = word[0]
    if first < _SCRIPTS[0][0]:
        return "latin"
    return next((script for low, high, script in _SCRIPTS if low <= first <= high), "other")


def is_stop_word(word: str, taken: str) -> bool:
    """Return whether a lower-cased word is a function word in a text taken for `taken`."""
    return word in STOP_WORDS.get(language_of_word(word, taken) or "", ())


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
