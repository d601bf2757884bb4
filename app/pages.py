"""Pages with a budget: rows are read in order until their bytes are used up, at least one.

Values are chosen by clients, so a number of rows bounds neither the memory nor the time of an
answer. PostgreSQL itself stops at the budget, from sizes that it keeps beside the values.
"""

from dataclasses import dataclass
from typing import Any

from asyncpg import Record

from app.admission import require_room
from app.db import Connection

PAGE_BYTES = 4 << 20
"""Of one answer: the page of a list or of a search, or all results of a batch."""

TOOL_BYTES = 256 << 10
"""Of what a tool answers to a model, which pays for every word."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and whether there are more behind them."""

    rows: list[Record]
    more: bool


async def fetch_page(
    connection: Connection,
    sql: str,
    *arguments: Any,
    limit: int,
    max_bytes: int = PAGE_BYTES,
) -> Page:
    """Return the first `limit` rows, or as many as `max_bytes` have room for.

    `sql` returns up to `limit + 1` rows in order, with the size of each as `bytes`. Only the rows
    of the page leave PostgreSQL; large values of others are not even read. Raises OverloadedError
    while earlier answers wait for clients that do not take them.
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
    # A limit of zero has no first row that could say whether there are more.
    return Page(rows, more=bool(rows) and rows[0]["candidates"] > len(rows))
