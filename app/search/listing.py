"""A search without a text: the items of a scope in order."""

from typing import Any

from app.db.database import Connection
from app.pagination import write_cursor
from app.search import repository
from app.search.hits import Hit, SearchPage, fit_tokens
from app.search.paging import KeyCursor, TimeCursor
from app.search.plan import ListingPlan


async def list_items(connection: Connection, plan: ListingPlan, max_bytes: int) -> SearchPage:
    """Return a page of a listing; it ends early if its values fill `max_bytes`."""
    page = await repository.fetch_listing(connection, plan, max_bytes)
    total = await repository.count_items(connection, plan.scope) if plan.page.with_total else None
    return SearchPage(
        fit_tokens([Hit(row) for row in page.items], plan.page.max_tokens),
        next_cursor=page.next_cursor(lambda last: _cursor_after(plan, last)),
        total=total,
    )


def _cursor_after(plan: ListingPlan, row: Any) -> str:
    kind = KeyCursor if plan.column == "key" else TimeCursor
    return write_cursor(
        kind.model_construct(search=plan.fingerprint, item_id=row["id"], value=row[plan.column])
    )
