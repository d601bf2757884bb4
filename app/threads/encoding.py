"""Threads and their messages to the JSON that clients get."""

import json
from typing import Any

import orjson

from app.auth.access import Access
from app.db.database import Row
from app.pagination import Page
from app.threads.appending import Appended
from app.threads.visibility import reads_conversation


def appended(thread_id: str, appended: Appended) -> dict[str, Any]:
    """Return what became of messages, as JSON that can be stored."""
    found, forms_at = appended.recognized, appended.forms_at
    return {
        "thread_id": thread_id,
        "appended": len(found.new),
        "already_known": found.already_known,
        "differing": found.differing,
        "waiting": appended.waiting,
        "job_id": appended.job_id,
        "forms_at": forms_at and forms_at.isoformat(),
    }


def thread(row: Row, job: Row | None, access: Access) -> dict[str, Any]:
    """Return a thread, and the job that waits to form memories of it, as members of JSON.

    The summary reveals the conversation, so it is left out unless the caller may read that.
    """
    formation = json.loads(row["formation"]) if row["formation"] else None
    summary = row["summary"] if reads_conversation(access, row) else None
    return {
        "thread_id": row["id"],
        "namespace": access.relative(row["namespace"]),
        "manager": formation and formation["plan"]["manager"],
        "messages": row["next_position"],
        "learned_until": row["learned_until"],
        "waiting": row["next_position"] - row["learned_until"],
        "waiting_since": row["waiting_since"],
        "job_id": job and job["id"],
        "forms_at": job and job["run_at"],
        "summary": orjson.Fragment(summary) if summary else None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def messages(page: Page[Row]) -> dict[str, Any]:
    """Return a page of messages as members of JSON."""
    return {
        "messages": [
            {
                "position": row["position"],
                "message": orjson.Fragment(row["message"]),
                "created_at": row["created_at"],
            }
            for row in page.items
        ],
        "next_cursor": page.next_cursor(lambda row: row["position"] + 1),
    }
