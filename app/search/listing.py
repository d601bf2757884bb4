"""A search without a query: the items of a scope in order."""

from functools import partial

from asyncpg import Record

from app.db.database import Connection
from app.db.pages import fetch_page
from app.db.sql import Parameters
from app.pagination import Page, write_cursor
from app.search.budget import within_tokens
from app.search.cursors import KeyCursor, TimeCursor
from app.search.found import Found, Result
from app.search.prepared import Listing
from app.search.results import count_items
from app.store.repository import COLUMNS

_TYPES = {"updated_at": "timestamptz", "created_at": "timestamptz", "key": "text"}


async def list_page(connection: Connection, search: Listing, max_bytes: int) -> Found:
    """Return a page of a listing; it ends early if its values fill `max_bytes`."""
    column, descending = search.sort.removeprefix("-"), search.sort.startswith("-")
    page = await _fetch(connection, search, column, max_bytes, descending=descending)
    return Found(
        _within_budget([Result(row) for row in page.items], search.page.max_tokens),
        next_cursor=page.next_cursor(partial(_cursor, search, column)),
        total=await count_items(connection, search.scope) if search.page.with_total else None,
    )


async def _fetch(
    connection: Connection, search: Listing, column: str, max_bytes: int, *, descending: bool
) -> Page[Record]:
    parameters = Parameters()
    condition = search.scope.holds_item(parameters)
    if search.cursor is not None:
        last = parameters.add(search.cursor.value, _TYPES[column])
        place = f"({last}, {parameters.add(search.cursor.item_id, 'bigint')})"
        condition += f" AND (i.{column}, i.id) {'<' if descending else '>'} {place}"
    direction = "DESC" if descending else "ASC"
    return await fetch_page(
        connection,
        f"SELECT id, {COLUMNS}, value_bytes AS bytes FROM items i WHERE {condition} "
        f"ORDER BY i.{column} {direction}, i.id {direction} "
        f"LIMIT {parameters.add(search.page.limit + 1, 'bigint')} "
        f"OFFSET {parameters.add(search.page.offset, 'bigint')}",
        *parameters.values,
        limit=search.page.limit,
        max_bytes=max_bytes,
    )


def _cursor(search: Listing, column: str, row: Record) -> str:
    kind = KeyCursor if column == "key" else TimeCursor
    return write_cursor(
        kind.model_construct(search=search.name, item_id=row["id"], value=row[column])
    )


def _within_budget(results: list[Result], budget: int | None) -> list[Result]:
    return results if budget is None else within_tokens(results, budget)
