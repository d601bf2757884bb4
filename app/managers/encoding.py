"""Managers as clients see them; the configuration is passed through as text."""

from typing import Any

import orjson

from app.db.database import Row


def manager(row: Row) -> dict[str, Any]:
    """Return a manager's row as the members of its JSON object."""
    return {
        "name": row["name"],
        "config": orjson.Fragment(row["config"]),
        "version": row["version"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
