"""What every embedder can do."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.float32]
"""One dimension, unit length."""


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is their similarity."""

    @property
    def name(self) -> str:
        """The setting that selects this embedder, such as `local:all-MiniLM-L6-v2`."""

    @property
    def dimensions(self) -> int:
        """The length of a vector; some embedders know it only after `warm_up`."""

    async def warm_up(self, *, load: bool = True) -> None:
        """Learn the dimensions and, with `load`, load the model before the first `embed`."""

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        """Return one vector a text; `urgent` marks a query that somebody waits for.

        Raises ProviderError.
        """

    def split(self, text: str) -> list[str]:
        """Cut `text` into passages that fit the model; none for blank text.

        May take a second for a megabyte: call it in a thread for texts of that size.
        """

    async def aclose(self) -> None:
        """Release what the embedder holds; calls after it fail with UnavailableError."""
