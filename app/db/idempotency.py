"""Requests that clients may send twice: the second one gets the first one's answer.

The API key that sent the request gets the answer again before any other check, because its grants
never change. Another key of the same root gets it only after its own grants are checked.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.database import Connection, Database
from app.db.tables import BYTEWISE, TIME, metadata
from app.errors import ConflictError

idempotent_requests = Table(
    "idempotent_requests",
    metadata,
    Column("namespace", BYTEWISE, nullable=False, comment="Root of the key that sent it."),
    Column("actor", Text, nullable=False, comment="The key that sent it."),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, comment="Hash of the route and the body."),
    Column("answer", JSONB, nullable=False),
    Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("namespace", "key"),
    Index("idempotent_requests_created_at_index", "created_at"),
    comment="Answers to requests with an Idempotency-Key, for a day.",
)

# The second of two concurrent requests waits here until the first has committed.
_CLAIM_KEY = """
INSERT INTO idempotent_requests (namespace, actor, key, fingerprint, answer, created_at)
VALUES ($1, $2, $3, $4, 'null', clock_timestamp())
ON CONFLICT (namespace, key) DO UPDATE SET
    actor = excluded.actor, fingerprint = excluded.fingerprint, answer = 'null',
    created_at = excluded.created_at
    WHERE idempotent_requests.created_at < clock_timestamp() - interval '24 hours'
RETURNING answer
"""

_FIND = """
SELECT answer FROM idempotent_requests WHERE namespace = $1 AND key = $2 AND fingerprint = $3
    AND created_at >= clock_timestamp() - interval '24 hours'
"""

_FIND_OWN = f"{_FIND} AND actor = $4"

_REMEMBER = "UPDATE idempotent_requests SET answer = $3 WHERE namespace = $1 AND key = $2"

_DELETE_OLD = """
DELETE FROM idempotent_requests WHERE created_at < clock_timestamp() - interval '24 hours'
"""


class IdempotencyKeyReusedError(ConflictError):
    """An Idempotency-Key came with a different request than before."""

    code = "idempotency_key_reused"
    title = "Idempotency key used before"

    def __init__(self, key: str) -> None:
        super().__init__(
            f'The Idempotency-Key "{key}" was used for another request within the last 24 hours; '
            "use a new key, or send the same request."
        )


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """The identity of a request; `key` is None if the client sent none.

    `root` and `actor` are those of the API key.
    """

    root: str
    actor: str
    key: str | None
    fingerprint: str

    async def find_answer(self, database: Database) -> Any:
        """Return the answer that the same API key got before, or None; it promises nothing.

        A repeated request need not be prepared again: what that needs may be gone.
        """
        if self.key is None:
            return None
        async with database.connection(self.root) as connection:
            answer = await connection.fetchval(
                _FIND_OWN, self.root, self.key, self.fingerprint, self.actor
            )
        return None if answer is None else json.loads(answer)

    async def claim(self, connection: Connection) -> Any:
        """Return the answer of an earlier request, or None; call it in the creating transaction.

        The caller's grants for the request must have been checked before. Raises
        IdempotencyKeyReusedError.
        """
        if self.key is None:
            return None
        answer = await connection.fetchval(
            _CLAIM_KEY, self.root, self.actor, self.key, self.fingerprint
        ) or await connection.fetchval(_FIND, self.root, self.key, self.fingerprint)
        if answer is None:
            raise IdempotencyKeyReusedError(self.key)
        return json.loads(answer)

    async def remember(self, connection: Connection, answer: Any) -> None:
        """Store the answer for a day, in the transaction that creates what it reports."""
        if self.key is not None:
            text = json.dumps(answer, ensure_ascii=False)
            await connection.execute(_REMEMBER, self.root, self.key, text)


async def delete_old_answers(connection: Connection) -> None:
    """Delete the answers of requests that are no longer recognized."""
    await connection.execute(_DELETE_OLD)
