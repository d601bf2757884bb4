"""Cursors: where a page ended, so that the next goes on there whatever was added meanwhile."""

import hashlib
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.indexing.terms import MAX_QUERY_WORDS
from app.pagination import InvalidCursorError, read_cursor
from app.schemas import Clean, Moment

ItemId = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]
"""Since 1970."""

Count = Annotated[float, Field(ge=0, le=1e12)]

MOST_SEEN = 100_000
"""How deep the cursors of a ranking count; a large scope is not searched deeper."""


class Cursor(BaseModel):
    """The name of the search that a cursor belongs to, and the last item given."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="forbid")

    search: str
    item_id: ItemId


class RankedCursor(Cursor):
    """Behind which item a ranking goes on, how many were given, and what scores rest on.

    What does not lie in an item itself is kept from the first page, so that its score is the same
    on every page, whatever is added meanwhile: the time that recency and strength are reckoned
    from, and BM25's statistics.
    """

    seen: Annotated[int, Field(ge=0, le=MOST_SEEN)]
    now: Seconds
    pinned: bool
    score: Annotated[float, Field(ge=-1.001, le=1.001)] | None  # a cosine may be off by a bit
    updated_at: Seconds
    passages: Count
    average_length: Count
    passages_with: Annotated[list[Count], Field(max_length=MAX_QUERY_WORDS)]


class TimeCursor(Cursor):
    """Behind which item a listing by a time goes on."""

    value: Annotated[Moment, Field(strict=False)]


class KeyCursor(Cursor):
    """Behind which item a listing by key goes on."""

    value: Clean


AnyCursor = TypeVar("AnyCursor", bound=Cursor)


def fingerprint(*parts: Any) -> str:
    """Return a short name of a search: a cursor fits only the search it came from."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def read_search_cursor(text: str, search: str, kind: type[AnyCursor]) -> AnyCursor:
    """Return the cursor in a request; raises InvalidCursorError if it does not fit."""
    cursor = read_cursor(text, kind)
    if cursor.search != search:
        raise InvalidCursorError(
            "cursor belongs to another search; send the same namespace_prefix, query, filter and "
            "ranking as for the page it came with."
        )
    return cursor
