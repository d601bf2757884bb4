"""Duplicates of memories: exact ones, and near ones that differ in articles or punctuation.

A false merge loses a memory, while a missed one costs a line. So every word, number, negation, and
name must be present on both sides, in the same order (docs/decisions/0012-near-duplicates.md).
"""

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

from app.auth.access import Access
from app.conversations.memories import Edit, Memory, read_value
from app.db.database import Connection
from app.namespaces import StoredNamespace
from app.providers.embedder import Vector
from app.resources import Resources
from app.search.plan import SearchPlan, SearchQuery
from app.search.service import SearchService
from app.store.types import Address, Item

LEAST_COSINE = 0.9
"""Minimum cosine of near duplicates; measured ones had at least 0.96."""

_ENDINGS = ".,;:!。、"  # not "?", quotes, or signs: C#, 6' and 5% differ from C, 6 and 5
_KEPT_APART = ("<super>", "<sub>", "<fraction>", "<circle>")  # NFKC turns 10² into 102
_TYPOGRAPHY = str.maketrans("\u2018\u2019\u02bc\u201c\u201d\u201e", "'''\"\"\"")

_TOKENS = re.compile(r"\w+(?:[^\w\s]+\w+)*|[^\w\s]")
_ARTICLES = frozenset({"a", "an", "the"})
_NEED_ARTICLE = frozenset({"few", "little"})  # "a few friends" and "few friends" differ
_CONTRACTED = {"can't": "can", "cannot": "can", "won't": "will", "shan't": "shall"}

MAX_COMPARED = 20
"""Maximum comparisons of memories with the same words; beyond it, a duplicate may be kept."""

_NEAREST = 10
"""Items to compare; a duplicate shares all words of the insert, so it ranks first."""

_SEARCHED_CHARACTERS = 2_000

_Strings: TypeAlias = Callable[[str], str]

_Key: TypeAlias = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory to compare; `vector` is its embedding, of unit length, if there is one."""

    kind: str | None
    content: Mapping[str, object]
    vector: Vector | None = None


def fingerprint(content: Mapping[str, object]) -> str:
    """Return a hash that is equal for contents that differ only in form.

    Form is the order of JSON keys, letter case, Unicode form, white space, and final punctuation.
    """
    return hashlib.sha256(_canonical(content, _plain).encode()).hexdigest()


def normalized_wording(content: Mapping[str, object]) -> str:
    """Return a text that is equal for near duplicates; equal texts may still differ in articles."""
    return _canonical(content, lambda text: " ".join(word for word, _ in _words(text)))


def loose_wording(content: Mapping[str, object]) -> str:
    """Return a coarse key, equal if the fingerprints or the normalized wordings are equal."""
    return _canonical(
        content,
        lambda text: " ".join(word for word, _ in _words(_plain(text)) if word not in _ARTICLES),
    )


def is_near_duplicate(a: Candidate, b: Candidate) -> bool:
    """Return whether two memories of one kind have the same content in almost the same words.

    The case of a kind's name is ignored: LangMem's Memory is our memory.
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


def is_duplicate(kind: str | None, content: Mapping[str, object], memory: Memory) -> bool:
    """Return whether a new content duplicates a memory.

    A memory without a kind that is a single text is compared by its words alone, whatever the name
    of its member.
    """
    if memory.kind is not None:
        return is_near_duplicate(Candidate(kind, content), Candidate(memory.kind, memory.content))
    return is_near_duplicate(
        Candidate(None, _bare(content)), Candidate(None, _bare(memory.content))
    )


class DuplicateIndex:
    """An index by words that finds the memory that a new content duplicates, in constant time."""

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

    def find_duplicate(self, kind: str | None, content: Mapping[str, object]) -> str | None:
        """Return the id of a memory that a new content duplicates, preferably one of its kind."""
        for key in (_key(kind or "", content), _key(None, content)):
            for number, id_ in enumerate(self._ids.get(key, ())):
                if number == MAX_COMPARED:
                    break
                if is_duplicate(kind, content, self._memories[id_]):
                    return id_
        return None


class DuplicateFoundError(Exception):
    """Inserts duplicate memories that were not known; nothing was written."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        super().__init__(f"{len(memories)} memories are there already")
        self.memories = tuple(memories)


@dataclass(frozen=True, slots=True)
class DuplicateQuery:
    """An insert, and the search for its duplicates."""

    insert: Edit
    plan: SearchPlan
    vector: Vector | None


class DuplicateFinder:
    """Finds duplicates of inserts among all indexed items of their namespace."""

    def __init__(self, search: SearchService) -> None:
        self._search = search

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the finder from a process's resources."""
        return cls(SearchService.build(resources))

    async def prepare(self, access: Access, edits: Sequence[Edit]) -> list[DuplicateQuery]:
        """Embed the contents of the inserts among some edits, without holding a connection."""
        inserts = [edit for edit in edits if edit.action == "insert"]
        plans = [self._plan(access, insert) for insert in inserts]
        vectors = await self._search.embed_if_possible(plans)
        return [DuplicateQuery(*query) for query in zip(inserts, plans, vectors, strict=True)]

    async def check(
        self,
        connection: Connection,
        queries: Sequence[DuplicateQuery],
        *,
        ignoring: Collection[Address],
    ) -> None:
        """Raise DuplicateFoundError if the connection's transaction sees duplicates of inserts."""
        found: dict[Address, Memory] = {}
        for query in queries:
            insert = query.insert
            page = await self._search.find(connection, query.plan, query.vector)
            for item in (hit.item for hit in page.hits):
                memory = to_memory(item, "/".join(item.address))
                if item.address not in ignoring and is_duplicate(
                    insert.kind, insert.content or {}, memory
                ):
                    found[item.address] = memory
        if found:
            raise DuplicateFoundError(list(found.values()))

    def _plan(self, access: Access, insert: Edit) -> SearchPlan:
        query = SearchQuery(
            namespace=access.relative(insert.namespace or StoredNamespace("")),
            with_children=False,
            text=text_of(insert.content)[:_SEARCHED_CHARACTERS],
            limit=_NEAREST,
        )
        return self._search.plan(access, query)


def articles(content: Mapping[str, object]) -> list[str | None]:
    """Return the article, or None, before every word, in the order of sorted keys."""
    found: list[str | None] = []

    def note(text: str) -> str:
        found.extend(article for _, article in _words(text))
        return text

    _with_strings(content, note)
    return found


def text_of(content: object) -> str:
    """Return the texts of a content, or its JSON if it has none."""
    return " ".join(_texts(content)) or json.dumps(content, ensure_ascii=False)


def _texts(content: object) -> list[str]:
    match content:
        case str():
            return [content] if content.strip() else []
        case dict():
            return [text for value in content.values() for text in _texts(value)]
        case list():
            return [text for value in content for text in _texts(value)]
        case _:
            return []


def _canonical(content: object, of_string: _Strings) -> str:
    form = _with_strings(content, of_string)
    return json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _with_strings(value: object, of_string: _Strings) -> object:
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
    """Return whether a token is an article, unlike the letter in "hepatitis A"."""
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


def _articles_agree(a: Mapping[str, object], b: Mapping[str, object]) -> bool:
    """Return whether the articles differ only by omission."""
    pairs = zip(articles(a), articles(b), strict=True)
    return all(first is None or second is None or first == second for first, second in pairs)


def _key(kind: str | None, content: Mapping[str, object]) -> _Key:
    if kind is None:
        return None, loose_wording(_bare(content))
    return kind.lower(), loose_wording(content)


def _bare(content: Mapping[str, object]) -> Mapping[str, object]:
    """Return a content with a neutral name for its member, if it is a single text."""
    values = list(content.values())
    return {"text": values[0]} if len(values) == 1 and isinstance(values[0], str) else content


def to_memory(item: Item, memory_id: str) -> Memory:
    """Return an item as a memory with a short id."""
    format_, kind, content = read_value(item.parse_value())
    return Memory(
        id=memory_id,
        kind=kind,
        content=content,
        format=format_,
        namespace=item.address.namespace,
        key=item.address.key,
        version=item.version,
        importance=item.metadata.importance,
        valid_from=item.metadata.valid_from,
        valid_to=item.metadata.valid_to,
        said_first=item.metadata.said_first,
        said_last=item.metadata.said_last,
        source_class=item.metadata.source_class,
        updated_at=item.updated_at,
        is_stale=item.is_stale,
    )
