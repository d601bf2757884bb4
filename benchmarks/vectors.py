"""Vectors without a model: the mean of fixed random vectors of a text's words."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

DIMENSIONS = 384

Vectors = npt.NDArray[np.float32]


@lru_cache(maxsize=100_000)
def _word_vector(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(DIMENSIONS, dtype=np.float32)


def embed(text: str) -> Vectors:
    """Return the unit vector of a text; texts that share words are near each other."""
    words = text.split() or [""]
    total = np.sum([_word_vector(word) for word in words], axis=0)
    vector: Vectors = total / np.linalg.norm(total)
    return vector


def embed_all(texts: Sequence[str]) -> Vectors:
    """Return one row per text."""
    return np.stack([embed(text) for text in texts])


async def embed_lists(texts: Sequence[str]) -> list[list[float]]:
    """Return plain lists, as LangGraph's index configuration takes them."""
    rows: list[list[float]] = embed_all(texts).tolist()
    return rows
