"""Pages of a list, and the cursors that lead from one page to the next."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from app.errors import InvalidRequestError

UNREADABLE = "cursor cannot be read; send next_cursor of the page before as it is."

ItemT_co = TypeVar("ItemT_co", covariant=True)
ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class InvalidCursorError(InvalidRequestError):
    """The request's cursor did not come with a page of the same list."""

    code = "invalid_cursor"
    title = "Invalid cursor"

    def __init__(self, detail: str = UNREADABLE) -> None:
        super().__init__(detail, field="cursor")


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT_co]):
    """Items in order, and whether more follow."""

    items: Sequence[ItemT_co]
    more: bool

    @staticmethod
    def cut(found: Sequence[ResultT], limit: int) -> "Page[ResultT]":
        """Return the page of up to `limit + 1` items that were fetched to see if more follow."""
        return Page(found[:limit], more=len(found) > limit)

    def first(self, count: int) -> "Page[ItemT_co]":
        """Return the page shortened to `count` items, as when their bytes used up a budget."""
        return Page(self.items[:count], self.more or len(self.items) > count)

    def map(self, convert: Callable[[ItemT_co], ResultT]) -> "Page[ResultT]":
        """Return the page with every item converted."""
        return Page([convert(item) for item in self.items], self.more)

    def next_cursor(self, of: Callable[[ItemT_co], ResultT]) -> ResultT | None:
        """Return the cursor of the next page, made from the last item; None on the last page."""
        return of(self.items[-1]) if self.more else None


def write_cursor(cursor: BaseModel) -> str:
    """Return a cursor of several parts as opaque text."""
    return base64.urlsafe_b64encode(cursor.model_dump_json().encode()).decode().rstrip("=")


def read_cursor(text: str, kind: type[ModelT]) -> ModelT:
    """Return the cursor that `write_cursor` wrote; raises InvalidCursorError."""
    try:
        data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        return kind.model_validate_json(data)
    except ValueError as error:  # pydantic's and base64's errors
        raise InvalidCursorError from error
