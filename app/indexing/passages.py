"""From an item's value to its passages: which texts are indexed, and how they are cut.

Index paths name the texts: `$` the whole value; `a.b` a member; `a[0]`, `a[-1]`, `a[*]` elements;
`*` every child; `{a,b.c}` several members, each on its own.
"""

import asyncio
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeAlias

from app.background import TimeSlice
from app.encoded_data import remove_encoded_data
from app.errors import AppError, InvalidRequestError
from app.indexing.terms import Vocabulary
from app.json_values import JsonObject
from app.providers.embedder import Embedder, TextKind, Vector, is_about_text, split_by_characters
from app.providers.errors import ProviderError

MAX_PASSAGES = 2_000
"""Maximum passages of one item: about 1 MiB of prose, at worst a minute of the local model."""

MAX_FREQUENCY = 2**15 - 1
"""Maximum count of a term in a passage, by the column's type; for BM25 higher ones are alike."""

SEPARATOR = "\x1f"
"""Separates terms, which hold no control characters."""

WHOLE = ("$", "")
"""Paths of the whole value."""

QUESTIONS = "?"
"""Path of the passages that are questions."""

MAX_PLACES = 20_000
"""Maximum places in a value that one path may visit."""

_STEP = re.compile(r"\{([^{}]*)\}|\[(-?\d+|\*)\]|(\*)|([^.\[\]{}*]+)")

_LONG_TEXT_CHARACTERS = 4_000
"""Longer texts are cut on a thread: cutting them would block the event loop."""

_NOT_EMBEDDED_CHARACTERS = 1_000
"""Length of a passage if no model sets a limit; about as much as the local model reads."""

_CUTTER = ThreadPoolExecutor(1, thread_name_prefix="cutter")
"""One thread: more would not be faster, and would keep the interpreter from the event loop."""


class InvalidIndexPathError(InvalidRequestError):
    """A path in `index` that cannot be read."""

    code = "invalid_index_path"
    title = "Invalid index path"


class EmbeddingFailedError(AppError):
    """The embedding provider failed on a text that has to be embedded; nothing was stored."""

    status = 503
    code = "embedding_failed"
    title = "Embedding failed"

    def __init__(self, model: str, error: ProviderError) -> None:
        super().__init__(
            f"{model} could not embed the text: {error}. Nothing was stored. "
            + ("Try again." if error.retryable else "Check the server's embedding settings.")
        )
        if error.retryable:
            self.headers["Retry-After"] = f"{max(1, math.ceil(error.retry_after or 0))}"
        self.is_about_text = is_about_text(error)
        """Whether the model fails on this text alone."""
        self.cause = self.__cause__ = error


Embedded: TypeAlias = Vector | EmbeddingFailedError | None
"""A text's vector, or the error for which it has none; None if nothing is embedded."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of an item's indexed text, its path, and its terms in the form that SQL takes."""

    path: str
    text: str
    length: int
    """Number of terms in the text, including repetitions."""
    terms: str
    """The distinct terms, joined by SEPARATOR."""
    frequencies: str
    """The count of each term, joined by commas."""

    @classmethod
    def of(cls, path: str, text: str, terms: Mapping[str, int]) -> Self:
        """Return a passage with its terms counted."""
        frequencies = ",".join(str(min(count, MAX_FREQUENCY)) for count in terms.values())
        return cls(path, text, sum(terms.values()), SEPARATOR.join(terms), frequencies)


@dataclass(frozen=True, slots=True)
class PassageIndex:
    """The number that passages are stored under, and the embedder and vocabulary that make them."""

    id: int
    embedder: Embedder | None
    vocabulary: Vocabulary
    default_paths: Sequence[str] = ("$",)
    """Paths to index in items that name none."""

    async def cut(
        self, value: JsonObject, paths: Sequence[str] | None, questions: Sequence[str] = ()
    ) -> list[Passage]:
        """Return an item's passages; `paths` None stands for the default ones.

        The questions that it answers are passages as well, unless nothing of it is indexed.

        Raises InvalidIndexPathError.
        """
        passages: list[Passage] = []
        time_slice = TimeSlice()
        for path in self.default_paths if paths is None else paths:
            for text in texts_at(value, path):
                passages.extend(await self._cut(path, text))
                if len(passages) > MAX_PASSAGES:
                    raise InvalidIndexPathError(
                        f"index leads to more than {MAX_PASSAGES:,} passages. "
                        "Index fewer paths, or split the value into several items.",
                        field="index",
                    )
                await time_slice.give_way()
        if passages:
            passages.extend(p for text in questions for p in self._passages(QUESTIONS, text))
        return passages

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Vector | None]:
        """Return one unit vector a text, None without an embedder; raises EmbeddingFailedError."""
        vectors: list[Vector | None] = []
        for embedded in await self.embed_each(texts, kind=kind):
            if isinstance(embedded, EmbeddingFailedError):
                raise embedded
            vectors.append(embedded)
        return vectors

    async def embed_each(
        self, texts: Sequence[str], *, kind: TextKind = "passage"
    ) -> list[Embedded]:
        """Return for each text its unit vector or its error; None without an embedder."""
        if self.embedder is None or not texts:
            return [None] * len(texts)
        name = self.embedder.name
        outcomes = await self.embedder.embed_each(texts, kind=kind)
        return [
            EmbeddingFailedError(name, one) if isinstance(one, ProviderError) else one
            for one in outcomes
        ]

    async def _cut(self, path: str, text: str) -> list[Passage]:
        if len(text) <= _LONG_TEXT_CHARACTERS:
            return self._passages(path, text)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_CUTTER, self._passages, path, text)

    def _passages(self, path: str, text: str) -> list[Passage]:
        of_passage = self.vocabulary.of_passage
        return [Passage.of(path, part, of_passage(part)) for part in self._split(text)]

    def _split(self, text: str) -> list[str]:
        """Cut a text into the parts that the embedder reads; may take a second for a megabyte."""
        if self.embedder is None:
            return split_by_characters(text, _NOT_EMBEDDED_CHARACTERS)
        return self.embedder.split(text)


def check_path(path: str, field: str) -> None:
    """Raise InvalidIndexPathError unless the path can be followed."""
    try:
        _steps(path)
    except ValueError as error:
        raise InvalidIndexPathError(
            f"{field} is {path!r}: {error}. Write paths like title, meta.author, tags[*] or "
            "{title,meta.author}.",
            field=field,
        ) from error


def texts_at(value: dict[str, Any], path: str) -> list[str]:
    """Return the texts a path leads to, in the value's order; none if it leads nowhere.

    Encoded data, such as images in base64, is left out of them.
    """
    if path in WHOLE:
        return [remove_encoded_data(_text(value))]
    leaves = _Walk(path).follow([value], _steps(path))
    return [remove_encoded_data(_text(leaf)) for leaf in leaves if leaf is not None]


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[re.Match[str], ...]:
    if path in WHOLE:
        return ()
    steps: list[re.Match[str]] = []
    at = 0
    while at < len(path):
        at += path[at] == "." and at > 0
        step = _STEP.match(path, at)
        if step is None:
            raise ValueError(f"it cannot be read from character {at + 1} on")
        for branch in step[1].split(",") if step[1] is not None else ():
            _steps(branch.strip())
        steps.append(step)
        at = step.end()
    return tuple(steps)


class _Walk:
    """Follows a path; raises InvalidIndexPathError once it has led to too many places.

    Each `{a,a}` in a path doubles them, and each `[*]` visits a whole list.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._left = MAX_PLACES

    def follow(self, nodes: list[Any], steps: Sequence[re.Match[str]]) -> list[Any]:
        """Return the nodes that the steps lead to from some nodes, in order."""
        for step in steps:
            found: list[Any] = []
            for node in nodes:
                found.extend(self._children(node, step))
                self._take(1)
            self._take(len(found))
            nodes = found
        return nodes

    def _children(self, node: Any, step: re.Match[str]) -> Iterable[Any]:
        branches, index, star, name = step.groups()
        if branches is not None:
            return [
                leaf
                for branch in branches.split(",")
                for leaf in self.follow([node], _steps(branch.strip()))
            ]
        if name is not None:
            return [node[name]] if isinstance(node, dict) and name in node else []
        if star and isinstance(node, dict):
            return node.values()
        if not isinstance(node, list):
            return []
        if star or index == "*":
            return node
        position = int(index)
        return [node[position]] if -len(node) <= position < len(node) else []

    def _take(self, places: int) -> None:
        self._left -= places
        if self._left < 0:
            raise InvalidIndexPathError(
                f"index has the path {self._path!r}, which leads to more than {MAX_PLACES:,} "
                "places; name fewer.",
                field="index",
            )


def _text(leaf: Any) -> str:
    if isinstance(leaf, (dict, list)):
        return json.dumps(leaf, sort_keys=True, ensure_ascii=False)
    return str(leaf)
