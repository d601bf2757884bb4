"""Pages with a byte budget: rows in order until the budget is used up, but at least one.

Clients choose the size of values, so a number of rows bounds neither memory nor time. PostgreSQL
itself stops at the budget, by sizes that are stored with the values.
"""

from typing import Any

from asyncpg import Record

from app.db.database import Connection
from app.http.request_context import require_room
from app.pagination import Page

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
