"""All SQL of the queue: who gets which job, for how long, and what becomes of it.

A worker holds a job by a lease that it extends while it works. Everything it writes about the job
names the attempt, so that one whose lease ran out changes nothing any more. Times are the
database's, which every worker shares.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database, Row
from app.db.notifier import CHANGED
from app.jobs.record import CLAIMED_COLUMNS, ClaimedJob
from app.jobs.repository import TELL

PRUNED_AT_ONCE = 1_000
"""Jobs removed in one statement, with all they reported and changed."""

LONGEST_WAIT_SECONDS = 600.0
"""Longest pause between attempts at a job that waits for a correct configuration."""

# Claims are made one after another, or two workers could exceed a root's share together.
_LOCK = "SELECT pg_advisory_xact_lock(7305313)"

# Roots are visited one index probe each, whatever the number of jobs that wait below them. In each,
# a job somebody waits for goes before one in the background; the root with fewest running goes
# first. A job is passed over while another with its
# concurrency key runs. A root has at most $3 running jobs, and
# always leaves one slot of all live workers ($4: this worker's slots) to others.
_CLAIM = f"""
WITH RECURSIVE roots AS (
    (SELECT root FROM jobs WHERE state = 'queued' ORDER BY root LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.root FROM jobs WHERE state = 'queued' AND jobs.root > roots.root
            ORDER BY jobs.root LIMIT 1)
    FROM roots WHERE root IS NOT NULL
), running AS (
    SELECT root, count(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY root
), share AS (
    SELECT least($3, greatest($4 + coalesce(sum(concurrency), 0) - 1, 1)) AS most FROM workers
    WHERE id <> $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)
), chosen AS (
    SELECT first.id, first.run_at FROM roots LEFT JOIN running USING (root)
    CROSS JOIN (VALUES (0::smallint), (1::smallint)) AS priorities (priority)
    CROSS JOIN LATERAL (
        SELECT id, run_at FROM jobs
        WHERE state = 'queued' AND jobs.root = roots.root
            AND jobs.priority = priorities.priority AND run_at <= clock_timestamp()
            AND ($5 OR NOT isolated)
            AND NOT EXISTS (
                SELECT 1 FROM jobs busy WHERE busy.state = 'running'
                    AND busy.concurrency_key = jobs.concurrency_key
            )
        ORDER BY run_at, id LIMIT 1
    ) AS first
    WHERE coalesce(running.jobs, 0) < (SELECT most FROM share)
    ORDER BY coalesce(running.jobs, 0), priorities.priority, first.run_at, first.id LIMIT 1
), changed AS (
    UPDATE jobs SET state = 'running', worker = $1, attempt = attempt + 1, events = events + 1,
        lease_until = clock_timestamp() + make_interval(secs => $2),
        started_at = coalesce(started_at, clock_timestamp())
    FROM chosen WHERE jobs.id = chosen.id AND state = 'queued' AND jobs.run_at = chosen.run_at
    RETURNING jobs.*
), told AS (
    INSERT INTO job_events (job_id, number, namespace, event, data, recorded_at)
    SELECT id, events, namespace, state, '{{}}', clock_timestamp() FROM changed
)
SELECT {CLAIMED_COLUMNS}, pg_notify('{CHANGED}', id) FROM changed
"""

_EXTEND = """
UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::text[], $2::int[]) AS held (id, attempt)
WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND state = 'running'
RETURNING jobs.id, jobs.attempt, cancel_requested
"""

# $2: the first pause; $3: how many attempts a job has. Those handed back, and those before it was
# queued again by hand, do not make the pause longer.
_BACKOFF = """
least($2 * 2 ^ least(greatest($3 - (max_attempts - attempt) - 1, 0), 20), 3600)
    * (0.75 + random() / 2)
"""

_AGAIN = "NOT cancel_requested AND attempt < max_attempts"

# All jobs of a worker are lost together, when the first lease expires or the worker is known to be
# dead ($4). Any of them may be the cause, so each runs alone the next time. The attempt does not
# count if others shared the process. Leases that were extended since they were read are left alone.
_RESCUE = f"""
WITH held AS MATERIALIZED (
    SELECT id, worker, lease_until, min(lease_until) OVER same AS first_lease,
        NOT isolated AND count(*) OVER same > 1 AS shared
    FROM jobs WHERE state = 'running' WINDOW same AS (PARTITION BY worker)
), lost AS (
    SELECT jobs.id, held.shared FROM jobs JOIN held USING (id)
    WHERE jobs.state = 'running' AND jobs.lease_until = held.lease_until
        AND (first_lease < clock_timestamp() OR held.worker = $4)
    FOR UPDATE OF jobs SKIP LOCKED
), changed AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested THEN 'cancelled'
            WHEN NOT shared AND attempt >= max_attempts THEN 'failed' ELSE 'queued' END,
        error = CASE WHEN NOT cancel_requested THEN $1::jsonb END,
        max_attempts = max_attempts + shared::int,
        run_at = CASE WHEN shared AND NOT cancel_requested THEN clock_timestamp()
            WHEN {_AGAIN} THEN clock_timestamp() + make_interval(secs => {_BACKOFF})
            ELSE jobs.run_at END,
        finished_at = CASE WHEN cancel_requested OR NOT shared AND attempt >= max_attempts
            THEN clock_timestamp() END,
        isolated = true, worker = NULL, lease_until = NULL, events = events + 1
    FROM lost WHERE jobs.id = lost.id
    RETURNING jobs.*
)
{TELL}
"""

# Ends an attempt that did not finish. $5: the error; $6: whether another attempt may help; $7: at
# the earliest after so many seconds.
_GIVE_UP = f"""
WITH changed AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested THEN 'cancelled'
            WHEN $6 AND attempt < max_attempts THEN 'queued' ELSE 'failed' END,
        error = CASE WHEN NOT cancel_requested THEN $5::jsonb END,
        run_at = CASE WHEN $6 AND {_AGAIN} THEN
            clock_timestamp() + make_interval(secs => greatest(least($7, 3600), {_BACKOFF}))
            ELSE run_at END,
        finished_at = CASE WHEN cancel_requested OR NOT ($6 AND attempt < max_attempts)
            THEN clock_timestamp() END,
        blocked_since = NULL, worker = NULL, lease_until = NULL, events = events + 1
    WHERE id = $1 AND attempt = $4 AND state = 'running'
    RETURNING *
)
{TELL}
"""

# Ends an attempt without counting it. $4: the job runs alone the next time, at once; otherwise it
# waits for the configuration, each time as long as it has waited so far.
_PUT_OFF = f"""
WITH changed AS (
    UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
        error = CASE WHEN NOT cancel_requested THEN $3::jsonb END,
        max_attempts = max_attempts + 1, isolated = isolated OR $4,
        blocked_since = CASE WHEN NOT $4 THEN coalesce(blocked_since, clock_timestamp()) END,
        run_at = clock_timestamp() + make_interval(secs => CASE WHEN $4 THEN 0 ELSE
            least(greatest($5, extract(epoch FROM clock_timestamp() - blocked_since)::float8), $6)
            * (0.75 + random() / 2) END),
        finished_at = CASE WHEN cancel_requested THEN clock_timestamp() END,
        worker = NULL, lease_until = NULL, events = events + 1
    WHERE id = $1 AND attempt = $2 AND state = 'running'
    RETURNING *
)
{TELL}
"""

_WAKE_WAITING = """
UPDATE jobs SET run_at = clock_timestamp()
WHERE state = 'queued' AND blocked_since IS NOT NULL AND run_at > clock_timestamp()
"""

_FIND_RUNNING = f"""
SELECT {CLAIMED_COLUMNS} FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'running'
"""

_HAND_BACK = f"""
WITH changed AS (
    UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
        max_attempts = max_attempts + 1, run_at = clock_timestamp(), worker = NULL,
        lease_until = NULL,
        finished_at = CASE WHEN cancel_requested THEN clock_timestamp() END, events = events + 1
    WHERE worker = $1 AND state = 'running'
    RETURNING *
)
{TELL}
"""

_SEEN = """
INSERT INTO workers (id, concurrency, started_at, seen_at)
VALUES ($1, $2, clock_timestamp(), clock_timestamp())
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
"""

_FORGET = "DELETE FROM workers WHERE id = $1 OR seen_at < clock_timestamp() - interval '1 day'"

# Probes ask it every few seconds: it reads no more than what has not ended, by its indexes.
_STATE = """
SELECT count(*) FILTER (WHERE run_at <= clock_timestamp()) AS pending,
    count(*) FILTER (WHERE run_at > clock_timestamp() AND blocked_since IS NULL) AS scheduled,
    count(*) FILTER (WHERE run_at > clock_timestamp() AND blocked_since IS NOT NULL)
        AS blocked,
    (SELECT count(*) FROM jobs WHERE state = 'running') AS running,
    extract(epoch FROM clock_timestamp() - min(run_at) FILTER (
        WHERE run_at <= clock_timestamp()))::float8 AS oldest_pending_seconds,
    (SELECT count(*) FROM workers
     WHERE seen_at > clock_timestamp() - make_interval(secs => $1)) AS workers
FROM jobs WHERE state = 'queued'
"""

_MISCONFIGURED = """
SELECT count(*) OVER () AS jobs, min(blocked_since) OVER () AS since, error ->> 'detail' AS detail
FROM jobs WHERE state = 'queued' AND blocked_since IS NOT NULL ORDER BY blocked_since LIMIT 1
"""

_FAILURES = "SELECT kind, count(*) AS jobs FROM jobs WHERE state = 'failed' GROUP BY kind"

# The CTE is evaluated once; a subquery might be for each row, and remove more than the limit.
_PRUNE = """
WITH old AS MATERIALIZED (
    SELECT id FROM jobs WHERE finished_at < clock_timestamp() - make_interval(days => $1)
    LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM jobs USING old WHERE jobs.id = old.id
"""


@dataclass(frozen=True, slots=True)
class QueueState:
    """How much work waits, and whether anybody does it."""

    pending: int
    scheduled: int
    blocked: int
    running: int
    oldest_pending_seconds: float | None
    workers: int


async def lock(connection: Connection) -> None:
    """Let nobody else claim until the transaction ends."""
    await connection.execute(_LOCK)


async def claim(
    connection: Connection,
    worker: str,
    *,
    lease_seconds: float,
    concurrency: int,
    most_per_root: int,
    isolated: bool = True,
) -> ClaimedJob | None:
    """Take the job whose turn it is; None when none can be started. Needs the lock.

    With `isolated`, it may be one that runs alone in a process.
    """
    row = await connection.fetchrow(
        _CLAIM, worker, lease_seconds, most_per_root, concurrency, isolated
    )
    return ClaimedJob.of_row(row) if row else None


async def find_running(connection: Connection, job_id: str, attempt: int) -> ClaimedJob | None:
    """Return a job if it is running in this attempt."""
    row = await connection.fetchrow(_FIND_RUNNING, job_id, attempt)
    return ClaimedJob.of_row(row) if row else None


async def extend(
    connection: Connection, held: Sequence[ClaimedJob], lease_seconds: float
) -> set[tuple[str, int]]:
    """Keep jobs; return id and attempt of those that are neither lost nor to be cancelled."""
    ids, attempts = [job.id for job in held], [job.attempt for job in held]
    rows = await connection.fetch(_EXTEND, ids, attempts, lease_seconds)
    return {(row["id"], row["attempt"]) for row in rows if not row["cancel_requested"]}


async def rescue(
    connection: Connection, settings: Settings, *, dead_worker: str | None = None
) -> list[str]:
    """Take jobs from workers that fell silent, to be tried again or given up; return their ids.

    A worker that is known to be dead loses its jobs at once.
    """
    error = {"code": "worker_lost", "detail": "The worker stopped in the middle of the job."}
    rows = await connection.fetch(
        _RESCUE,
        json.dumps(error),
        settings.job_backoff_seconds,
        settings.job_attempts,
        dead_worker,
    )
    return [row["id"] for row in rows]


async def put_off(
    connection: Connection,
    job: ClaimedJob,
    error: Mapping[str, Any],
    *,
    isolates: bool,
    settings: Settings,
) -> None:
    """End an attempt without counting it: the job next runs alone, or waits for the operator."""
    await connection.execute(
        _PUT_OFF,
        job.id,
        job.attempt,
        json.dumps(error, ensure_ascii=False),
        isolates,
        settings.job_backoff_seconds,
        LONGEST_WAIT_SECONDS,
    )


async def wake_waiting(connection: Connection) -> None:
    """Make jobs that wait for the configuration due now."""
    await connection.execute(_WAKE_WAITING)


async def give_up(
    connection: Connection,
    job: ClaimedJob,
    error: Mapping[str, Any],
    *,
    retry_after: float | None,
    settings: Settings,
) -> None:
    """End an attempt that failed: cancelled if that was asked for, queued again, or failed.

    `retry_after` is the least number of seconds to the next attempt; None: no attempt would help.
    """
    await connection.execute(
        _GIVE_UP,
        job.id,
        settings.job_backoff_seconds,
        settings.job_attempts,
        job.attempt,
        json.dumps(error, ensure_ascii=False),
        retry_after is not None,
        retry_after or 0.0,
    )


async def hand_back(connection: Connection, worker: str) -> None:
    """Let other workers have what one has begun; its attempts do not count."""
    await connection.execute(_HAND_BACK, worker)


async def seen(connection: Connection, worker: str, concurrency: int) -> None:
    """Note that a worker lives."""
    await connection.execute(_SEEN, worker, concurrency)


async def forget(connection: Connection, worker: str) -> None:
    """Note that a worker has ended."""
    await connection.execute(_FORGET, worker)


async def state(connection: Connection, alive_seconds: float) -> QueueState:
    """Return how the queue stands; workers seen within `alive_seconds` are alive."""
    row = await connection.fetchrow(_STATE, alive_seconds)
    assert row is not None  # noqa: S101  # an aggregate always has a row
    return QueueState(**row)


async def misconfigured(connection: Connection) -> Row | None:
    """Return how many `jobs` wait for the configuration, `since` when, and one's `detail`."""
    return await connection.fetchrow(_MISCONFIGURED)


async def failures(connection: Connection) -> Mapping[str, int]:
    """Return how many failed jobs are kept, by kind."""
    return {row["kind"]: row["jobs"] for row in await connection.fetch(_FAILURES)}


async def overview(database: Database, alive_seconds: float) -> tuple[QueueState, dict[str, int]]:
    """Return the state of the queue, and the number of failed jobs by kind."""
    async with database.connection(ALL_ROOTS) as connection:
        return await state(connection, alive_seconds), dict(await failures(connection))


async def prune(connection: Connection, retention_days: int) -> bool:
    """Remove some jobs that ended long ago; tell whether there may be more."""
    removed = await connection.execute(_PRUNE, retention_days, PRUNED_AT_ONCE)
    return removed == f"DELETE {PRUNED_AT_ONCE}"
