"""Pages of a list: their cursors, and a byte budget that ends a page early, but after one row.

Clients choose the size of values, so a number of rows bounds neither memory nor time. PostgreSQL
itself stops at the budget, by sizes that are stored with the values.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asyncpg import Record
from pydantic import BaseModel

from app.db.database import Connection
from app.errors import InvalidRequestError
from app.http.request_context import require_room

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


PAGE_BYTES = 4 << 20
"""Budget of one response: a page of a list or search, or all results of a batch."""

TOOL_BYTES = 256 << 10
"""Budget of a tool's answer to a model, which pays for every word."""


async def fetch_page(
    connection: Connection,
    sql: str,
    *arguments: Any,
    limit: int,
    max_bytes: int = PAGE_BYTES,
) -> Page[Record]:
    """Return the first `limit` rows, or as many as fit into `max_bytes`.

    `sql` must return up to `limit + 1` rows in order, with the size of each as `bytes`. Only the
    page's rows leave PostgreSQL; large values of other rows are not even read. Raises
    OverloadedError while too many unsent answers are in memory.
    """
    require_room()
    budget = len(arguments) + 1
    rows = await connection.fetch(
        f"""
        SELECT * FROM (
            SELECT *, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) AS bytes_so_far,
                row_number() OVER () AS place, count(*) OVER () AS candidates
            FROM ({sql}) AS found
        ) AS measured
        WHERE place <= ${budget + 1}::bigint AND (place = 1 OR bytes_so_far <= ${budget}::bigint)
        ORDER BY place
        """,
        *arguments,
        max_bytes,
        limit,
    )
    # With a limit of zero, no row can say whether there are more.
    return Page(rows, more=bool(rows) and rows[0]["candidates"] > len(rows))
