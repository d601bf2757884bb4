"""An embedder for tests: deterministic, without a model; similar texts have similar vectors."""

import asyncio
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from app.providers.embeddings.base import Vector, split_by_characters
from app.providers.errors import UnavailableError

_PASSAGE_CHARACTERS = 1_000


class FakeEmbedder:
    """Gives each word a direction and each text the sum of its words' directions.

    `calls` records the texts of each call; `delay` is how many seconds a call takes.
    """

    name = "fake:hashed"

    def __init__(self, dimensions: int = 64, *, delay: float = 0) -> None:
        self.dimensions = dimensions
        self.delay = delay
        self.calls: list[list[str]] = []
        self._closed = False

    async def warm_up(self, *, load: bool = True) -> None:
        """Do nothing: there is nothing to load."""

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:  # noqa: ARG002 - answers at once
        """Return one vector a text."""
        if self._closed:
            raise UnavailableError(f"{self.name} is closed; make another")
        self.calls.append(list(texts))
        await asyncio.sleep(self.delay)
        return [self._vector(text) for text in texts]

    def split(self, text: str) -> list[str]:
        """Cut `text` into passages of at most 1,000 characters."""
        return split_by_characters(text, _PASSAGE_CHARACTERS)

    async def aclose(self) -> None:
        """Refuse further calls, as the others do."""
        self._closed = True

    def _vector(self, text: str) -> Vector:
        words = re.findall(r"\w+", text.lower()) or [""]
        total = np.sum([self._direction(word) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), dtype=np.float32)

    def _direction(self, word: str) -> Vector:
        seed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(seed, "little"))
        return generator.standard_normal(self.dimensions, dtype=np.float32)
