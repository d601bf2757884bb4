"""Rows to the JSON that clients get; an item's value is passed through as text, never parsed."""

from operator import itemgetter
from typing import Any

import orjson

from app.auth.access import Access
from app.db.database import Row
from app.pagination import Page
from app.store.listing import ListedNamespaces

_DETAILS = ("importance", "pinned", "valid_from", "valid_to")


def item(row: Row, access: Access) -> dict[str, Any]:
    """Return an item as members of JSON."""
    return {
        "namespace": access.relative(row["namespace"]),
        "key": row["key"],
        "value": orjson.Fragment(row["value"]),
        "version": row["version"],
        **{name: row[name] for name in _DETAILS},
        "source": _json(row["source"]),
        "expires_at": row["expires_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def version(row: Row) -> dict[str, Any]:
    """Return one state of an item's history as members of JSON."""
    return {
        "version": row["version"],
        "action": row["action"],
        "value": _json(row["value"]),
        **{name: row[name] for name in _DETAILS},
        "source": _json(row["source"]),
        "actor": row["actor"],
        "recorded_at": row["recorded_at"],
    }


def versions(page: Page[Row]) -> dict[str, Any]:
    """Return a page of an item's history as members of JSON."""
    return {
        "versions": [version(row) for row in page.items],
        "next_cursor": page.next_cursor(itemgetter("version")),
    }


def namespaces(listed: ListedNamespaces) -> dict[str, Any]:
    """Return listed namespaces as members of JSON."""
    more = {"counts": listed.counts, "next_offset": listed.next_offset}
    given = {name: member for name, member in more.items() if member is not None}
    return {"namespaces": listed.labels, **given}


def _json(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
