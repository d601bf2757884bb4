"""All SQL of threads' running summaries."""

import json
from collections.abc import Collection
from typing import Any

from app.db import Connection
from app.threads.repository import Ref

_MESSAGES = """
SELECT message_id, message FROM thread_messages
WHERE root = $1 AND thread_id = $2 AND message_id <> ALL ($3::text[]) ORDER BY position
"""

_KEEP = """
UPDATE threads SET summary = $4
WHERE root = $1 AND id = $2 AND summary IS NOT DISTINCT FROM $3::jsonb
RETURNING id
"""


async def find_uncovered(
    connection: Connection, ref: Ref, covered: Collection[str]
) -> list[dict[str, Any]]:
    """Return the messages of a thread, with their ids, that have none of some ids."""
    rows = await connection.fetch(_MESSAGES, *ref, list(covered))
    return [{**json.loads(row["message"]), "id": row["message_id"]} for row in rows]


async def keep_summary(connection: Connection, ref: Ref, before: str | None, after: str) -> bool:
    """Replace a thread's running summary; False if it is another one by now, or gone."""
    return await connection.fetchrow(_KEEP, *ref, before, after) is not None
