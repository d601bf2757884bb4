"""Jobs as clients see them: without their root, as plain members of JSON."""

import json
from collections.abc import Sequence
from typing import Any

from app.auth.access import Access
from app.db.database import Row
from app.jobs.job import State
from app.jobs.visibility import reads_contents

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
_USAGE = ("model_calls", "input_tokens", "output_tokens", "cached_tokens")


_REDACTED = "Only keys with `read` on the job's namespace are shown why."


def job(row: Row, access: Access) -> dict[str, Any]:
    """Return a job's row as its JSON object, without the contents that a caller may not read."""
    return _members(row, access, {"result": _result(row, row["result"], access)})


def listed_jobs(
    rows: Sequence[Row], results: Sequence[str | None] | None, access: Access
) -> list[dict[str, Any]]:
    """Return the members of listed jobs; with `results`, only the jobs that these cover."""
    if results is None:
        return [_members(row, access, {}) for row in rows]
    return [
        _members(row, access, {"result": _result(row, result, access)})
        for row, result in zip(rows, results, strict=False)
    ]


def event(row: Row, *, is_readable: bool) -> dict[str, Any]:
    """Return a job's event as its JSON object, without data that the caller may not read."""
    data = json.loads(row["data"]) if is_readable else {}
    return {"event": row["event"], "data": data, "at": row["recorded_at"]}


def _members(row: Row, access: Access, result: dict[str, Any]) -> dict[str, Any]:
    cost, error = row["cost_usd"], _parsed(row["error"])
    is_readable = reads_contents(access, row)
    usage = {name: row[name] for name in _USAGE}
    return {
        **{name: row[name] for name in _PLAIN},
        "blocked_since": row["blocked_since"] if row["state"] == State.QUEUED else None,
        "redacted": not is_readable,
        "namespace": access.relative(row["namespace"]),
        **result,
        "error": error if is_readable or error is None else {**error, "detail": _REDACTED},
        "usage": {**usage, "cost_usd": None if cost is None else float(cost)},
    }


def _result(row: Row, text: str | None, access: Access) -> dict[str, Any] | None:
    """Return a job's result with its `kind`, by which clients tell results apart."""
    if not reads_contents(access, row):
        return None
    parsed = _parsed(text)
    return parsed and {"kind": row["kind"], **parsed}


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)
