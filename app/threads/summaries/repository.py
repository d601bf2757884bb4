"""All SQL of threads' running summaries."""

import json
from collections.abc import Collection
from typing import Any

from app.db.database import Connection, Row
from app.threads.repository import Ref, ref_of

_MESSAGES = """
SELECT message_id, message FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND message_id <> ALL ($4::text[])
ORDER BY position
"""

_KEEP = """
UPDATE threads SET summary = $6
WHERE root = $1 AND id = $2 AND namespace = $3 AND created_at = $4
    AND summary IS NOT DISTINCT FROM $5::jsonb
RETURNING id
"""


async def find_uncovered(
    connection: Connection, ref: Ref, covered: Collection[str]
) -> list[dict[str, Any]]:
    """Return the messages of a thread, with their ids, that have none of some ids."""
    rows = await connection.fetch(_MESSAGES, *ref, list(covered))
    return [{**json.loads(row["message"]), "id": row["message_id"]} for row in rows]


async def keep_summary(connection: Connection, thread: Row, summary: str) -> bool:
    """Replace the running summary of a thread as it was read; False if either is another by now."""
    read = (*ref_of(thread), thread["created_at"], thread["summary"])
    return await connection.fetchrow(_KEEP, *read, summary) is not None
