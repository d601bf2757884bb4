"""Cursors: where a page ended, so that the next goes on there whatever was added meanwhile."""

import base64
import hashlib
import json
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequestError
from app.schemas import Clean

ItemId = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]
"""Since 1970."""


class Cursor(BaseModel):
    """The name of the search that a cursor belongs to, and the last item given."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="forbid")

    search: str
    item_id: ItemId


class RankedCursor(Cursor):
    """Behind which item a ranking goes on, how many were given, and the time it is reckoned from.

    Recency and strength keep their values from page to page, because `now` does.
    """

    seen: Annotated[int, Field(ge=0, le=2**31)]
    now: Seconds
    pinned: bool
    score: float | None
    updated_at: Seconds


class ListedCursor(Cursor):
    """Behind which item a sorted listing goes on."""

    value: Annotated[datetime, Field(strict=False)] | Clean


AnyCursor = TypeVar("AnyCursor", bound=Cursor)


def fingerprint(*parts: Any) -> str:
    """Return a short name of a search: a cursor fits only the search it came from."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def write_cursor(cursor: Cursor) -> str:
    """Return a cursor as clients get it."""
    return base64.urlsafe_b64encode(cursor.model_dump_json().encode()).decode().rstrip("=")


def read_cursor(text: str, search: str, kind: type[AnyCursor]) -> AnyCursor:
    """Return the cursor in a request; raises InvalidRequestError where it does not fit."""
    try:
        data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        cursor = kind.model_validate_json(data)
    except (ValidationError, ValueError) as error:
        raise InvalidRequestError(
            "cursor cannot be read; send next_cursor of the page before as it is.", field="cursor"
        ) from error
    if cursor.search != search:
        raise InvalidRequestError(
            "cursor belongs to another search; send the same namespace_prefix, query, filter and "
            "ranking as for the page it came with.",
            field="cursor",
        )
    return cursor
