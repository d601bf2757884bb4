"""Changes of jobs as clients see them; values are passed through as text."""

from operator import itemgetter
from typing import Any

import orjson

from app.auth.access import Access
from app.changes.repository import ItemChange
from app.db.database import Row
from app.pagination import Page


def changes(page: Page[Row], access: Access) -> dict[str, Any]:
    """Return a page of changes as members of JSON."""
    return {
        "changes": [_change(row, access) for row in page.items],
        "next_cursor": page.next_cursor(itemgetter("number")),
    }


def _change(row: Row, access: Access) -> dict[str, Any]:
    change = ItemChange.of_row(row)
    return {
        "number": change.number,
        "action": change.action,
        "state": change.state,
        "namespace": access.relative(change.namespace),
        "key": change.key,
        "kind": change.kind,
        "value": _json(change.value),
        "value_before": _json(row["value_before"]),
        "importance": change.importance,
        "valid_from": change.valid_from,
        "source": change.source,
        "reason": change.reason,
        "outcome": change.outcome,
        "version_before": change.version_before,
        "version_after": change.version_after,
    }


def _json(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
