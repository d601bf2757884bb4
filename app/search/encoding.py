"""Found items to the JSON that clients get."""

from typing import Any

from app.auth.access import Access
from app.search.found import Found
from app.store import encoding


def found_items(found: Found, access: Access) -> dict[str, Any]:
    """Return what was found as members of JSON."""
    members: dict[str, Any] = {
        "items": [
            encoding.item(result.row, access)
            | {"score": result.score}
            | ({} if result.explanation is None else {"explanation": result.explanation})
            for result in found.results
        ],
        "next_cursor": found.next_cursor,
    }
    if found.total is not None:
        members["total"] = found.total
    if found.search is not None:
        members["search"] = found.search
    return members
