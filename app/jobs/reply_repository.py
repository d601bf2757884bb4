"""Replies of models, kept with a job until it ends: no attempt pays twice for the same reply."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from app.db.database import Connection
from app.jobs.record import ClaimedJob
from app.providers.llm import Completion, Request, TokenUsage, ToolCall, Verbatim

MAX_BYTES = 8 << 20
"""Maximum size of a job's replies together; further ones are not kept."""

# A reply to an attempt that lost its job is of use to the next one. A job that ended needs none.
_ADD = """
INSERT INTO job_replies (job_id, digest, namespace, reply)
SELECT id, $2, namespace, $3 FROM jobs
WHERE id = $1 AND state IN ('queued', 'running') AND $4 >= octet_length($3) + (
    SELECT coalesce(sum(octet_length(reply)), 0) FROM job_replies WHERE job_id = $1
)
ON CONFLICT (job_id, digest) DO NOTHING
"""

_FIND = "SELECT reply FROM job_replies WHERE job_id = $1 AND digest = $2"

_DELETE = "DELETE FROM job_replies WHERE job_id = $1 AND digest = ANY($2::text[])"


def digest_request(model: str, request: Request) -> str:
    """Return the key of the reply to a request."""
    text = json.dumps([model, asdict(request)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


async def add(connection: Connection, job: ClaimedJob, reply: Completion) -> None:
    """Keep a reply that has a digest, if there is room."""
    text = json.dumps(asdict(reply))  # in ASCII, which PostgreSQL can store whatever a reply holds
    await connection.execute(_ADD, job.id, reply.digest, text, MAX_BYTES)


async def find(connection: Connection, job: ClaimedJob, digest: str) -> Completion | None:
    """Return the reply to a request that the job has sent before."""
    text = await connection.fetchval(_FIND, job.id, digest)
    return None if text is None else replace(_read(json.loads(text)), digest=digest)


async def delete(connection: Connection, job: ClaimedJob, digests: Collection[str]) -> None:
    """Forget replies, so that another attempt asks again."""
    await connection.execute(_DELETE, job.id, list(digests))


def _read(members: dict[str, Any]) -> Completion:
    verbatim = members["verbatim"]
    return Completion(
        **{
            **members,
            "calls": tuple(ToolCall(**call) for call in members["calls"]),
            "usage": TokenUsage(**members["usage"]),
            "verbatim": None if verbatim is None else Verbatim(**verbatim),
        }
    )
