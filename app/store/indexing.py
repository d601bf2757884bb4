"""From an item's value to the passages it is found by."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.embedding_model import EmbeddingModel
from app.providers.embeddings.base import Vector
from app.store.errors import InvalidIndexPathError
from app.store.paths import texts_at

MAX_PIECES = 2_000
"""Of one item: about 1 MiB of prose, a minute of the local model's time at worst."""

_LONG_TEXT_CHARACTERS = 4_000
"""Longer texts are cut on a thread: tokenising them would hold up the event loop."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an item's indexed text, and the path it came from."""

    path: str
    text: str


class Indexer:
    """Cuts values into pieces and embeds them; holds no connection while it does."""

    def __init__(self, model: EmbeddingModel | None, default_paths: Sequence[str]) -> None:
        self._model = model
        self._default_paths = tuple(default_paths)

    @property
    def model_id(self) -> int | None:
        """The number of the model that embeds, or None when nothing is embedded."""
        return self._model.id if self._model else None

    async def cut(self, value: dict[str, Any], paths: Sequence[str] | None) -> list[Piece]:
        """Return the pieces an item is found by; paths None means the setting's.

        Raises InvalidIndexPathError.
        """
        if self._model is None:
            return []
        split = self._model.embedder.split
        pieces: list[Piece] = []
        for path in self._default_paths if paths is None else paths:
            for text in texts_at(value, path):
                if len(text) > _LONG_TEXT_CHARACTERS:
                    found = await asyncio.to_thread(split, text)
                else:
                    found = split(text)
                pieces.extend(Piece(path, piece) for piece in found)
        if len(pieces) > MAX_PIECES:
            raise InvalidIndexPathError(
                f"index leads to {len(pieces):,} passages; an item has at most {MAX_PIECES:,}. "
                "Index fewer paths, or split the value into several items.",
                field="index",
            )
        return pieces

    async def embed(self, pieces: Sequence[Sequence[Piece]]) -> list[list[Vector]]:
        """Return a vector for each piece of each item; raises EmbeddingFailedError."""
        texts = [piece.text for of_item in pieces for piece in of_item]
        vectors = iter(await self._model.embed(texts) if self._model and texts else [])
        return [[next(vectors) for _ in of_item] for of_item in pieces]
