"""The interface of embedders, and the splitting of long texts into overlapping passages."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.float32]
"""One dimension, unit length."""

# Tokenizers delete control characters and so join the words around them: not a place to cut.
_SPACE = r"[^\S\x0b\x0c\x1c-\x1f\x85]"
_SPACES = re.compile(_SPACE + "+")
_SENTENCE_END = re.compile(rf"[.!?…][\"')\]]*{_SPACE}+|[。！？]|\n+")  # noqa: RUF001 - Chinese marks
_OVERLAP = 0.1


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their similarity."""

    @property
    def name(self) -> str:
        """The setting that selects this embedder, such as `local:all-MiniLM-L6-v2`."""

    @property
    def dimensions(self) -> int:
        """The length of a vector; some embedders know it only after `warm_up`."""

    async def warm_up(self, *, load: bool = True) -> None:
        """Find out the dimensions and, with `load`, load the model before the first `embed`."""

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        """Return one vector a text; `urgent` marks a query that a request waits for.

        Raises ProviderError.
        """

    def split(self, text: str) -> list[str]:
        """Split `text` into passages that fit the model; none for blank text.

        May take a second for a megabyte: call it in a thread for texts of that size.
        """

    async def aclose(self) -> None:
        """Release all resources; later calls fail with UnavailableError."""


def split_text(text: str, reach: Callable[[int], int]) -> list[str]:
    """Return the passages of `spans`, stripped, without those that are blank."""
    passages = (text[start:end].strip() for start, end in spans(text, reach))
    return [passage for passage in passages if passage]


def spans(
    text: str, reach: Callable[[int], int], *, overlap: float = _OVERLAP
) -> Iterator[tuple[int, int]]:
    """Yield the start and end of passages that together cover `text`.

    A passage repeats at most the fraction `overlap` of the one before it. `reach(start)` is the
    furthest end of a passage from `start`: beyond `start`, and beyond the text if all the rest
    fits.
    """
    start, end = 0, 0
    while end < len(text):
        limit = reach(start)
        if limit <= end:
            start = end
            limit = reach(start)
        end = len(text) if limit >= len(text) else _best_end(text, start, limit, end)
        yield start, end
        start = _next_start(text, end, int((end - start) * overlap))


def split_by_characters(text: str, limit: int) -> list[str]:
    """Return passages of at most `limit` characters; none for blank text."""
    stripped = text.strip()
    return split_text(stripped, lambda start: start + limit)


def _best_end(text: str, start: int, limit: int, previous_end: int) -> int:
    """Prefer the last sentence end in the second half of the reach, then the last space."""
    floor = max(start + (limit - start) // 2, previous_end)
    for boundary in (_SENTENCE_END, _SPACES):
        ends = [match.end() for match in boundary.finditer(text, floor, limit)]
        if ends and ends[-1] > floor:
            return ends[-1]
    return limit


def _next_start(text: str, end: int, overlap: int) -> int:
    """Step back from `end` to the first word that begins within the overlap, if one does."""
    space = _SPACES.search(text, end - overlap, end)
    return space.end() if space else end
