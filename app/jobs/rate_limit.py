"""Rate limit of submitting jobs: one token bucket per key, shared by all processes."""

import math

from app.auth.access import Access
from app.auth.errors import TooManyRequestsError
from app.db.database import Connection

_REFILLED = (
    "least($2::float8, rates.tokens + $2::float8 / 60 * greatest(0, "
    "extract(epoch FROM statement_timestamp() - rates.updated_at)))"
)

_TAKE = f"""
INSERT INTO job_rates AS rates (actor, tokens, updated_at)
VALUES ($1, $2::float8 - $3::int, statement_timestamp())
ON CONFLICT (actor) DO UPDATE SET tokens = {_REFILLED} - $3::int, updated_at = excluded.updated_at
    WHERE {_REFILLED} >= $3::int
RETURNING tokens
"""

_LEFT = f"SELECT floor({_REFILLED})::int FROM job_rates AS rates WHERE actor = $1 FOR UPDATE"

_WAIT = f"SELECT (1 - {_REFILLED}) * 60 / $2::float8 FROM job_rates AS rates WHERE actor = $1"


async def take(connection: Connection, access: Access, jobs: int = 1) -> None:
    """Count jobs in the transaction that submits them; raises TooManyRequestsError.

    If the transaction is rolled back, nothing is counted.
    """
    limit = access.jobs_per_minute
    if limit is not None and await connection.fetchval(_TAKE, access.actor, limit, jobs) is None:
        raise await _exceeded(connection, access, limit)


async def available(connection: Connection, access: Access, most: int) -> int:
    """Return how many jobs, up to `most`, may be submitted now; TooManyRequestsError if none.

    Locks the key's bucket until the end of the transaction.
    """
    limit = access.jobs_per_minute
    if limit is None:
        return most
    left: int | None = await connection.fetchval(_LEFT, access.actor, limit)
    if left == 0:
        raise await _exceeded(connection, access, limit)
    return min(most, limit if left is None else left)


async def _exceeded(connection: Connection, access: Access, limit: int) -> TooManyRequestsError:
    seconds = await connection.fetchval(_WAIT, access.actor, limit)
    return TooManyRequestsError(access.actor, limit, "job", max(1, math.ceil(seconds)))
