"""From an item's value to the passages it is found by."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.passage_index import PassageIndex
from app.providers.embeddings.base import Vector
from app.store.errors import InvalidIndexPathError
from app.store.paths import texts_at

MAX_PIECES = 2_000
"""Of one item: about 1 MiB of prose, a minute of the local model's time at worst."""

_LONG_TEXT_CHARACTERS = 4_000
"""Longer texts are cut on a thread: tokenising them would hold up the event loop."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an item's indexed text, the path it came from, and how often it has each term."""

    path: str
    text: str
    terms: Mapping[str, int]

    @property
    def length(self) -> int:
        """How many terms the text has, each as often as it stands there."""
        return sum(self.terms.values())


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
        for path in self._default_paths if paths is None else paths:
            for text in texts_at(value, path):
                if len(text) > _LONG_TEXT_CHARACTERS:
                    pieces.extend(await asyncio.to_thread(self._pieces, path, text))
                else:
                    pieces.extend(self._pieces(path, text))
        if len(pieces) > MAX_PIECES:
            raise InvalidIndexPathError(
                f"index leads to {len(pieces):,} passages; an item has at most {MAX_PIECES:,}. "
                "Index fewer paths, or split the value into several items.",
                field="index",
            )
        return pieces

    async def embed(self, pieces: Sequence[Sequence[Piece]]) -> list[list[Vector | None]]:
        """Return a vector for each piece of each item; raises EmbeddingFailedError."""
        texts = [piece.text for of_item in pieces for piece in of_item]
        vectors = iter(await self._index.embed(texts))
        return [[next(vectors) for _ in of_item] for of_item in pieces]

    def _pieces(self, path: str, text: str) -> list[Piece]:
        of_passage = self._index.vocabulary.of_passage
        return [Piece(path, passage, of_passage(passage)) for passage in self._index.split(text)]
