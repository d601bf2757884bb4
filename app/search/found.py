"""What a search found."""

from dataclasses import dataclass
from typing import Any

from app.db.database import Row


@dataclass(frozen=True, slots=True)
class Result:
    """An item's row, its score, and how the score came about where that was asked for."""

    row: Row
    score: float | None = None
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of results, and what was asked for beside it."""

    results: list[Result]
    left_out: frozenset[int] = frozenset()
    """Ids of the page's items whose values its budget of bytes has no room for."""
    next_cursor: str | None = None
    total: int | None = None
    search: dict[str, Any] | None = None
