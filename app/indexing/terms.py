"""Text to the terms that keyword search matches: for passages and for queries, in any language."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import Stemmer  # type: ignore[import-not-found]  # it has no stubs

from app.indexing.numbers import join_numbers

VERSION: int = 2
"""Raised whenever the same text would give other terms: indexes must then be rebuilt."""

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

# Arabic letters that Persian and Urdu write in forms of their own.
_VARIANTS = str.maketrans(
    {
        "\u0649": "\u064a",
        "\u06cc": "\u064a",
        "\u06d2": "\u064a",
        "\u06a9": "\u0643",
        "\u06be": "\u0647",
        "\u06c1": "\u0647",
        "\u06d5": "\u0647",
    }
)
_VARIANT = re.compile("[\u0649\u06cc\u06d2\u06a9\u06be\u06c1\u06d5]")
# Characters without a width, and the dots below Indic letters that many writers leave out.
_DROPPED = re.compile("[\u00ad\u180e\u200b-\u200f\u2060\ufeff\u093c\u09bc\u0a3c\u0abc\u0b3c]+")
_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")

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
_FUNCTION_WORDS = _LANGUAGES_OF.keys()


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
    found = different & _FUNCTION_WORDS
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


MAX_QUERY_WORDS = 32

# Maximum length and number of the tokens that are cached: 10 to 20 MB.
_REMEMBERED_CHARACTERS = 32
_REMEMBERED = 16_384

_NOT_STEMMED = re.compile(r"[\d!-/:-@\[-`{-~]")

MAX_CHARACTERS = 64
"""Longer words are cut."""

# Scripts that are written without spaces between words.
_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff"
_KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_SOUTHEAST = (  # Thai, Lao, Myanmar, Khmer, but for their digits and punctuation
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf"
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1780-\u17d3\u17dc\u17dd"
)
_UNSPACED = _HAN + _HANGUL + _KANA + _SOUTHEAST

# Characters of a word that \w leaves out: soft hyphen, diacritics, vowel signs, joiners.
_MARKS = (
    "\u00ad\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u0711\u0730-\u074a\u07a6-\u07b0\u07eb-\u07f3\u0816-\u082d\u0859-\u085b\u08d3-\u08ff"
    "\u0900-\u0963\u0971-\u0dff\u0f18-\u0fbc\u200c\u200d"
)
_WORD = f"(?:[^\\W_{_UNSPACED}]++[{_MARKS}]*+)++"
_ASCII_WORD = "[0-9A-Za-z]++"

# Between two words of one token: a single sign, underscores, a colon with its slashes, or the
# comma of thousands.
_JOINT = r"(?:[-\u2010'\u2019./\\@+&=?#]|_++|:[/\\]*+|(?<=\d),(?=\d{3}(?!\d)))"
_SHAPE = r"(?:(?<![\w.])\.(?=[^\W\d]))?+{word}(?:{joint}{word})*+(?:(?:\+\+|\#)(?!\w))?+"

# A flag, or a picture; tones of skin and variants of style are left out.
_EMOJI = (
    "(?:[\U0001f1e6-\U0001f1ff]{2}"
    "|[\u231a-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff])"
)
_IS_EMOJI = re.compile(_EMOJI)

_URL = re.compile(
    r"(?:\w+:/+)?(?:[^/@]*@)?([\w-]+(?:\.[\w-]+)+)(?::\d+)?(?:/([^?#]*).*)?", re.DOTALL
)

_ASCII_TOKENS = re.compile(_SHAPE.format(word=_ASCII_WORD, joint=_JOINT), re.ASCII)
_TOKENS = re.compile(f"[{_UNSPACED}]++|{_EMOJI}|" + _SHAPE.format(word=_WORD, joint=_JOINT))
_WORDS = re.compile(_WORD)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
_SYLLABLE = re.compile(f"[{_HAN}{_HANGUL}]")
_LONE_HAN = re.compile(f"(?<![{_HAN}])[{_HAN}](?![{_HAN}])")

# A line break in JSON text is a backslash and a letter. In a Windows path that starts with a
# drive it is not; A: and Q: are no drives, but the labels of answers and questions.
_BACKSLASHES = re.compile(
    r"(?P<path>(?<!\w)[B-PR-Zb-pr-z]:\\(?!\\)[^\s\"]*+)|\\\\|\\(?:[nrt]|u00[01][0-9a-f])"
)
# Sorting a run of combining marks takes quadratic time. Such a run is no word to a reader.
_LONG_RUN = re.compile(r"(?:[^\w\s!-~]|[\uff9e\uff9f]){32,}+")

_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])++")
_WITHIN = re.compile(  # the number of a version; the date and the time of a moment
    r"[vV](\d++(?:\.\d++)++)|(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?).*", re.DOTALL
)
_TYPOGRAPHY = str.maketrans(
    {"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u00ad": None, "\u200c": None, "\u200d": None}
)


@dataclass(frozen=True, slots=True)
class QueryWord:
    """A word of a query, lower-cased, and the terms that may stand for it in passages."""

    word: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Turns text into terms, in one language or (None) in the detected language of each text.

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

        If its function words do not decide its language, a word may be in any language.
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


def tokens_of(text: str) -> list[str]:
    """Return the words, identifiers and numbers of a text and its runs of unspaced script."""
    if "\\" in text:
        text = _BACKSLASHES.sub(_unescaped, text)
    if text.isascii():
        return _ASCII_TOKENS.findall(text) + join_numbers(text)
    text = _normalize(text)
    return _TOKENS.findall(text) + join_numbers(text)


def _normalize(text: str) -> str:
    """Return a text in which characters that readers take for the same are the same."""
    text = unicodedata.normalize("NFKC", _LONG_RUN.sub(" ", text))
    text = _DROPPED.sub("", text)
    text = _VARIANT.sub(lambda letter: letter[0].translate(_VARIANTS), text)
    return _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)


def _unescaped(match: re.Match[str]) -> str:
    if match["path"]:
        return match["path"]
    return "\\" if match[0] == "\\\\" else " "


def is_unspaced(token: str) -> bool:
    """Return whether a token is a run of a script without spaces between words."""
    return token[0] >= "\u0e01" and _UNSPACED_RUN.match(token) is not None


def grams_of_passage(run: str) -> list[str]:
    """Return the pairs of adjacent characters in a run, and each ideograph and Korean syllable.

    The single ones let a query of one character find it inside longer runs. Kana and Thai
    letters mean nothing alone and are left out.
    """
    if len(run) == 1:
        return [run]
    return _pairs(run) + _SYLLABLE.findall(run)


def grams_of_query(run: str) -> list[str]:
    """Return the pairs of adjacent characters in a run, and its isolated ideographs."""
    if len(run) == 1:
        return [run]
    return _pairs(run) + _LONE_HAN.findall(run)


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


def words_of(token: str) -> list[str]:
    """Return the lower-cased words of a token: itself first, then its parts if it has any.

    INV-2024-0093 has the parts inv, 2024 and 0093; HTTPServer has http and server.
    """
    if not token.isascii():
        token = token.translate(_TYPOGRAPHY)
    token = token.removesuffix("'s").removesuffix("'S")
    if _IS_EMOJI.fullmatch(token):
        return [token]
    if _INITIALS.fullmatch(token):
        return [_lower(token.replace(".", ""))]
    parts = [part for run in _WORDS.findall(token) for part in _CAMEL.split(run[:MAX_CHARACTERS])]
    if not parts or parts == [token]:
        return [_lower(part) for part in parts]
    if inner := _WITHIN.fullmatch(token):
        parts += [word for group in inner.groups() if group for word in words_of(group)]
    if "/" in token and (url := _URL.fullmatch(token)):
        host, path = url.groups()
        parts += [
            host,
            host.removeprefix("www."),
            *(part for part in (path or "").split("/") if part),
        ]
    return list(dict.fromkeys(map(_lower, [token, *parts])))


def _lower(word: str) -> str:
    return word[:MAX_CHARACTERS].replace("İ", "i").lower()
