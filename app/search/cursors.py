"""Cursors: where a page ended, so that the next goes on there whatever was added meanwhile."""

import base64
import hashlib
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.indexing.terms import MAX_QUERY_WORDS
from app.schemas import Clean, Moment
from app.search.errors import InvalidCursorError

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


UNREADABLE = "cursor cannot be read; send next_cursor of the page before as it is."


def fingerprint(*parts: Any) -> str:
    """Return a short name of a search: a cursor fits only the search it came from."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def write_cursor(cursor: Cursor) -> str:
    """Return a cursor as clients get it."""
    return base64.urlsafe_b64encode(cursor.model_dump_json().encode()).decode().rstrip("=")


def read_cursor(text: str, search: str, kind: type[AnyCursor]) -> AnyCursor:
    """Return the cursor in a request; raises InvalidCursorError where it does not fit."""
    try:
        data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        cursor = kind.model_validate_json(data)
    except (ValidationError, ValueError) as error:
        raise InvalidCursorError(UNREADABLE) from error
    if cursor.search != search:
        raise InvalidCursorError(
            "cursor belongs to another search; send the same namespace_prefix, query, filter and "
            "ranking as for the page it came with."
        )
    return cursor
