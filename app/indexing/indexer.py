"""From an item's value to the passages it is found by."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from app.indexing.errors import InvalidIndexPathError
from app.indexing.passage_index import PassageIndex
from app.indexing.paths import texts_at
from app.providers.embeddings.base import Vector
from app.time_slice import TimeSlice

MAX_PIECES = 2_000
"""Of one item: about 1 MiB of prose, a minute of the local model's time at worst."""

MAX_FREQUENCY = 2**15 - 1
"""Maximum count of a term in a passage, by the column's type; for BM25 higher ones are alike."""

SEPARATOR = "\x1f"
"""Separates terms, which hold no control characters."""

_LONG_TEXT_CHARACTERS = 4_000
"""Longer texts are cut on a thread: tokenising them would hold up the event loop."""


_CUTTER = ThreadPoolExecutor(1, thread_name_prefix="cutter")
"""One thread: more would not be faster, and would keep the interpreter from the event loop."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an item's indexed text, its path, and its terms in the form that SQL takes."""

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
        """Return a piece with its terms counted."""
        frequencies = ",".join(str(min(count, MAX_FREQUENCY)) for count in terms.values())
        return cls(path, text, sum(terms.values()), SEPARATOR.join(terms), frequencies)


class Indexer:
    """Cuts values into pieces and embeds them; holds no connection while it does."""

    def __init__(self, index: PassageIndex, default_paths: Sequence[str]) -> None:
        self._index = index
        self._default_paths = tuple(default_paths)

    @property
    def index_id(self) -> int:
        """The number of the index that passages belong to."""
        return self._index.id

    async def cut(self, value: dict[str, Any], paths: Sequence[str] | None) -> list[Piece]:
        """Return the pieces an item is found by; paths None means the setting's.

        Raises InvalidIndexPathError.
        """
        pieces: list[Piece] = []
        time_slice = TimeSlice()
        for path in self._default_paths if paths is None else paths:
            for text in texts_at(value, path):
                pieces.extend(await self._cut(path, text))
                if len(pieces) > MAX_PIECES:
                    raise InvalidIndexPathError(
                        f"index leads to more than {MAX_PIECES:,} passages. "
                        "Index fewer paths, or split the value into several items.",
                        field="index",
                    )
                await time_slice.give_way()
        return pieces

    async def _cut(self, path: str, text: str) -> list[Piece]:
        if len(text) <= _LONG_TEXT_CHARACTERS:
            return self._pieces(path, text)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_CUTTER, self._pieces, path, text)

    async def embed(self, pieces: Sequence[Sequence[Piece]]) -> list[list[Vector | None]]:
        """Return a vector for each piece of each item; raises EmbeddingFailedError."""
        texts = [piece.text for of_item in pieces for piece in of_item]
        vectors = iter(await self._index.embed(texts))
        return [[next(vectors) for _ in of_item] for of_item in pieces]

    def _pieces(self, path: str, text: str) -> list[Piece]:
        of_passage = self._index.vocabulary.of_passage
        return [Piece.of(path, passage, of_passage(passage)) for passage in self._index.split(text)]
