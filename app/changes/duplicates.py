"""Which memories say the same: exactly, or but for articles, contractions and punctuation.

A false merge loses a memory and a missed one costs a line, so every word, number, negation and
name must be there on both sides, in the same order (docs/decisions/0012-near-duplicates.md).
"""

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from app.conversations.types import Memory
from app.providers.embeddings.base import Vector

LEAST_COSINE = 0.9
"""Of near duplicates; the measured ones had 0.96 and more."""

_ENDINGS = ".,;:!。、"  # not "?", quotes, signs: C#, 6' and 5% say something else without
_KEPT_APART = ("<super>", "<sub>", "<fraction>", "<circle>")  # NFKC makes 102 of 10²
_TYPOGRAPHY = str.maketrans("\u2018\u2019\u02bc\u201c\u201d\u201e", "'''\"\"\"")

_TOKENS = re.compile(r"\w+(?:[^\w\s]+\w+)*|[^\w\s]")
_ARTICLES = frozenset({"a", "an", "the"})
_NEED_ARTICLE = frozenset({"few", "little"})  # "a few friends" are some, "few friends" are not
_CONTRACTED = {"can't": "can", "cannot": "can", "won't": "will", "shan't": "shall"}

MAX_COMPARED = 20
"""Maximum comparisons of memories with the same words; beyond it, a duplicate may be kept."""

_Strings: TypeAlias = Callable[[str], str]

_Key: TypeAlias = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory to compare; `vector` of its text, of unit length, where there is one."""

    kind: str | None
    content: Mapping[str, Any]
    vector: Vector | None = None


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return what contents share that differ in nothing but form.

    Form is: order of JSON keys, letter case, Unicode form, white space, punctuation at the end.
    """
    return hashlib.sha256(_canonical(content, _plain).encode()).hexdigest()


def normalized_wording(content: Mapping[str, Any]) -> str:
    """Return what near duplicates share at least; those that share it need not be near."""
    return _canonical(content, lambda text: " ".join(word for word, _ in _words(text)))


def loose_wording(content: Mapping[str, Any]) -> str:
    """Return a coarse key, shared by contents with equal fingerprints or wordings, and others."""
    return _canonical(
        content,
        lambda text: " ".join(word for word, _ in _words(_plain(text)) if word not in _ARTICLES),
    )


def is_near_duplicate(a: Candidate, b: Candidate) -> bool:
    """Tell whether two memories of one kind say the same in almost the same words.

    The case of a kind's name does not count: what LangMem calls Memory is our memory.
    """
    if (a.kind or "").lower() != (b.kind or "").lower():
        return False
    if fingerprint(a.content) == fingerprint(b.content):
        return True
    if a.vector is not None and b.vector is not None and float(a.vector @ b.vector) < LEAST_COSINE:
        return False
    return normalized_wording(a.content) == normalized_wording(b.content) and _articles_agree(
        a.content, b.content
    )


def is_duplicate(kind: str | None, content: Mapping[str, Any], memory: Memory) -> bool:
    """Tell whether a new content says what a memory says.

    A memory without a kind that is a single text is compared by its words alone: whatever its
    member is called, it must not be learned again.
    """
    if memory.kind is not None:
        return is_near_duplicate(Candidate(kind, content), Candidate(memory.kind, memory.content))
    return is_near_duplicate(
        Candidate(None, _bare(content)), Candidate(None, _bare(memory.content))
    )


class DuplicateIndex:
    """Finds the memory that a new content repeats, in time independent of their number."""

    def __init__(self, memories: Iterable[Memory] = ()) -> None:
        self._memories: dict[str, Memory] = {}
        self._keys: dict[str, _Key] = {}
        self._ids: defaultdict[_Key, dict[str, None]] = defaultdict(dict)
        for memory in memories:
            self.put(memory)

    def put(self, memory: Memory) -> None:
        """Add a memory, or replace the one with its id."""
        if memory.id in self._keys:
            del self._ids[self._keys[memory.id]][memory.id]
        key = self._keys[memory.id] = _key(memory.kind, memory.content)
        self._ids[key][memory.id] = None
        self._memories[memory.id] = memory  # keeps the place of the one it replaces

    def find_duplicate(self, kind: str | None, content: Mapping[str, Any]) -> str | None:
        """Return the id of a memory that a new content repeats, preferably one of its kind."""
        for key in (_key(kind or "", content), _key(None, content)):
            for number, id_ in enumerate(self._ids.get(key, ())):
                if number == MAX_COMPARED:
                    break
                if is_duplicate(kind, content, self._memories[id_]):
                    return id_
        return None


def articles(content: Mapping[str, Any]) -> list[str | None]:
    """Return the article, or None, before every word, in the order of sorted keys."""
    found: list[str | None] = []

    def note(text: str) -> str:
        found.extend(article for _, article in _words(text))
        return text

    _with_strings(content, note)
    return found


def _canonical(content: Any, of_string: _Strings) -> str:
    form = _with_strings(content, of_string)
    return json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _with_strings(value: Any, of_string: _Strings) -> Any:
    match value:
        case str():
            return of_string(value)
        case Mapping():
            return {key: _with_strings(inner, of_string) for key, inner in sorted(value.items())}
        case list():
            return [_with_strings(inner, of_string) for inner in value]
        case _:
            return value


def _plain(text: str) -> str:
    return _trimmed(text).lower()


def _trimmed(text: str) -> str:
    """Return a text in one Unicode form, with single spaces, without punctuation at its end."""
    spaced = " ".join(_unified(text).translate(_TYPOGRAPHY).split())
    return spaced.rstrip(_ENDINGS + " ") or spaced


def _unified(text: str) -> str:
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", "".join(map(_letter, unicodedata.normalize("NFC", text))))


def _letter(character: str) -> str:
    if unicodedata.decomposition(character).startswith(_KEPT_APART):
        return character
    return unicodedata.normalize("NFKC", character)


def _words(text: str) -> list[tuple[str, str | None]]:
    """Return the lower-cased words and signs of a text, each with the article before it."""
    words: list[tuple[str, str | None]] = []
    article = None
    tokens = _TOKENS.findall(_trimmed(text))
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        word = token.lower()
        if _is_article(token, before, after.lower()):
            article = word
        elif not (word == "," and after.lower() in {"and", "or"}):
            first, *rest = _expanded(word)
            words += [(first, article), *((part, None) for part in rest)]
            article = None
    return words


def _is_article(token: str, before: str, after: str) -> bool:
    """Tell articles from the letter in "hepatitis A": small unless a sentence starts with it."""
    starts = before in {"", ".", "!", "?"}
    return (
        token.lower() in _ARTICLES
        and (token.islower() or starts)
        and after[:1].isalpha()
        and after not in _NEED_ARTICLE
    )


def _expanded(word: str) -> list[str]:
    if word in _CONTRACTED:
        return [_CONTRACTED[word], "not"]
    return [word.removesuffix("n't"), "not"] if word.endswith("n't") else [word]


def _articles_agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether one only leaves out articles that the other has, and never has others."""
    pairs = zip(articles(a), articles(b), strict=True)
    return all(first is None or second is None or first == second for first, second in pairs)


def _key(kind: str | None, content: Mapping[str, Any]) -> _Key:
    if kind is None:
        return None, loose_wording(_bare(content))
    return kind.lower(), loose_wording(content)


def _bare(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a content that is a single text under a neutral name."""
    values = list(content.values())
    return {"text": values[0]} if len(values) == 1 and isinstance(values[0], str) else content
