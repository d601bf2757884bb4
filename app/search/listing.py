"""A search without a query: the items of a scope in order."""

from asyncpg import Record

from app.db import Connection
from app.search.budget import within_tokens
from app.search.cursors import KeyCursor, TimeCursor, write_cursor
from app.search.found import Found, Result
from app.search.prepared import Listing
from app.search.results import count_items
from app.sql import Parameters
from app.store.repository import COLUMNS

_TYPES = {"updated_at": "timestamptz", "created_at": "timestamptz", "key": "text"}


async def list_page(connection: Connection, search: Listing) -> Found:
    """Return a page of a listing; one item more is read, to know whether there is another."""
    column, descending = search.sort.removeprefix("-"), search.sort.startswith("-")
    limit = search.page.limit
    rows = await _fetch(connection, search, column, descending=descending)
    page = rows[:limit]
    return Found(
        _within_budget([Result(row) for row in page], search.page.max_tokens),
        next_cursor=_cursor(search, column, page[-1]) if len(rows) > limit > 0 else None,
        total=await count_items(connection, search.scope) if search.page.with_total else None,
    )


async def _fetch(
    connection: Connection, search: Listing, column: str, *, descending: bool
) -> list[Record]:
    parameters = Parameters()
    condition = search.scope.holds_item(parameters)
    if search.cursor is not None:
        last = parameters.add(search.cursor.value, _TYPES[column])
        place = f"({last}, {parameters.add(search.cursor.item_id, 'bigint')})"
        condition += f" AND (i.{column}, i.id) {'<' if descending else '>'} {place}"
    direction = "DESC" if descending else "ASC"
    return await connection.fetch(
        f"SELECT id, {COLUMNS} FROM items i WHERE {condition} "
        f"ORDER BY i.{column} {direction}, i.id {direction} "
        f"LIMIT {parameters.add(search.page.limit + 1, 'bigint')} "
        f"OFFSET {parameters.add(search.page.offset, 'bigint')}",
        *parameters.values,
    )


def _cursor(search: Listing, column: str, row: Record) -> str:
    kind = KeyCursor if column == "key" else TimeCursor
    return write_cursor(
        kind.model_construct(search=search.name, item_id=row["id"], value=row[column])
    )


def _within_budget(results: list[Result], budget: int | None) -> list[Result]:
    return results if budget is None else within_tokens(results, budget)
