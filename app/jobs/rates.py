"""The rate at which a key may submit jobs: one bucket of tokens, over all processes."""

import math

from app.auth.access import Access
from app.auth.errors import RateLimitedError
from app.db import Connection

_REFILLED = (
    "least($2::float8, rates.tokens + $2::float8 / 60 * greatest(0, "
    "extract(epoch FROM statement_timestamp() - rates.updated_at)))"
)

_TAKE = f"""
INSERT INTO job_rates AS rates (actor, tokens, updated_at)
VALUES ($1, $2::float8 - 1, statement_timestamp())
ON CONFLICT (actor) DO UPDATE SET tokens = {_REFILLED} - 1, updated_at = excluded.updated_at
    WHERE {_REFILLED} >= 1
RETURNING tokens
"""

_WAIT = f"SELECT (1 - {_REFILLED}) * 60 / $2::float8 FROM job_rates AS rates WHERE actor = $1"


async def take(connection: Connection, access: Access) -> None:
    """Count one job in the transaction that submits it; raises RateLimitedError.

    A job that is not submitted after all is not counted.
    """
    limit = access.jobs_per_minute
    if limit is None or await connection.fetchval(_TAKE, access.actor, limit) is not None:
        return
    seconds = await connection.fetchval(_WAIT, access.actor, limit)
    raise RateLimitedError(access.actor, f"{limit:,} jobs", max(1, math.ceil(seconds)))
