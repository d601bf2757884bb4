"""Jobs as clients see them: without their root, as plain members of JSON."""

import json
from typing import Any

from app.auth.access import Access
from app.db import Row

_PLAIN = (
    "id",
    "kind",
    "state",
    "manager",
    "thread_id",
    "attempt",
    "max_attempts",
    "cancel_requested",
    "run_at",
    "created_at",
    "started_at",
    "finished_at",
)
_SPENT = ("model_calls", "input_tokens", "output_tokens", "cached_tokens")


def job(row: Row, access: Access) -> dict[str, Any]:
    """Return a job's row as the members of its JSON object."""
    cost = row["cost_usd"]
    spent = {name: row[name] for name in _SPENT}
    return {
        **{name: row[name] for name in _PLAIN},
        "namespace": access.relative(row["namespace"]),
        "result": _parsed(row["result"]),
        "error": _parsed(row["error"]),
        "spent": {**spent, "cost_usd": None if cost is None else float(cost)},
    }


def event(row: Row) -> dict[str, Any]:
    """Return what a job reported as the members of its JSON object."""
    return {"event": row["event"], "data": json.loads(row["data"]), "at": row["recorded_at"]}


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)
