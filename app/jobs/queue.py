"""SQL of the queue: claims, leases, retries, and the state of the queue.

A worker holds a job by a lease that it extends while it works. Everything it writes about the job
names the attempt, so a worker whose lease ran out changes nothing. Times are the database's, which
all workers share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from app.config import Settings
from app.db.database import ALL_ROOTS, Connection, Database
from app.db.notifier import CHANGED
from app.jobs.record import CLAIMED_COLUMNS, ClaimedJob, Failure
from app.jobs.repository import END_AND_NOTIFY

DELETED_AT_ONCE = 1_000
"""Jobs deleted in one statement, with their events and changes."""

MAX_BLOCKED_PAUSE_SECONDS = 600.0
"""Maximum pause between attempts at a job that waits for the configuration to be corrected."""

# Serializes claims; otherwise two workers could exceed a root's share together.
_LOCK = "SELECT pg_advisory_xact_lock(7305313)"

# One index probe per root, however many jobs wait below it. In each root, urgent jobs go before
# background jobs; the root with the fewest running jobs goes first. A job is skipped while another
# with its concurrency key runs. A root has at most $3 running jobs, and always leaves one slot of
# all live workers ($4: this worker's slots) to other roots.
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
), recorded AS (
    INSERT INTO job_events (job_id, number, namespace, event, data, recorded_at)
    SELECT id, events, namespace, state, '{{}}', clock_timestamp() FROM changed
)
SELECT {CLAIMED_COLUMNS}, pg_notify('{CHANGED}', id) FROM changed
"""

_EXTEND_LEASES = """
UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::text[], $2::int[]) AS held (id, attempt)
WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND state = 'running'
RETURNING jobs.id, jobs.attempt, cancel_requested
"""

# $2: the first pause; $3: the attempts that a job has. Released attempts, and those before a manual
# retry, do not make the pause longer.
_BACKOFF = """
least($2 * 2 ^ least(greatest($3 - (max_attempts - attempt) - 1, 0), 20), 3600)
    * (0.75 + random() / 2)
"""

_MAY_RETRY = "NOT cancel_requested AND attempt < max_attempts"

# All jobs of a worker are lost together, when the first lease expires or the worker is known to be
# dead ($4). Any of them may be the cause, so each runs alone the next time. The attempt does not
# count if others shared the process. Leases that were extended since they were read are left alone.
_REQUEUE_LOST = f"""
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
            WHEN {_MAY_RETRY} THEN clock_timestamp() + make_interval(secs => {_BACKOFF})
            ELSE jobs.run_at END,
        finished_at = CASE WHEN cancel_requested OR NOT shared AND attempt >= max_attempts
            THEN clock_timestamp() END,
        isolated = true, worker = NULL, lease_until = NULL, events = events + 1
    FROM lost WHERE jobs.id = lost.id
    RETURNING jobs.*
)
{END_AND_NOTIFY}
"""

# Ends an attempt that did not finish. $5: the error; $6: whether another attempt may help; $7: the
# minimum pause before it, in seconds.
_END_ATTEMPT = f"""
WITH changed AS (
    UPDATE jobs SET
        state = CASE WHEN cancel_requested THEN 'cancelled'
            WHEN $6 AND attempt < max_attempts THEN 'queued' ELSE 'failed' END,
        error = CASE WHEN NOT cancel_requested THEN $5::jsonb END,
        run_at = CASE WHEN $6 AND {_MAY_RETRY} THEN
            clock_timestamp() + make_interval(secs => greatest(least($7, 3600), {_BACKOFF}))
            ELSE run_at END,
        finished_at = CASE WHEN cancel_requested OR NOT ($6 AND attempt < max_attempts)
            THEN clock_timestamp() END,
        blocked_since = NULL, worker = NULL, lease_until = NULL, events = events + 1
    WHERE id = $1 AND attempt = $4 AND state = 'running'
    RETURNING *
)
{END_AND_NOTIFY}
"""

# Ends an attempt without counting it. $4: the job runs alone the next time, immediately; otherwise
# it waits for the configuration, each time as long as it has waited so far.
_POSTPONE = f"""
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
{END_AND_NOTIFY}
"""

_RETRY_BLOCKED = """
UPDATE jobs SET run_at = clock_timestamp()
WHERE state = 'queued' AND blocked_since IS NOT NULL AND run_at > clock_timestamp()
"""

_FIND_RUNNING = f"""
SELECT {CLAIMED_COLUMNS} FROM jobs WHERE id = $1 AND attempt = $2 AND state = 'running'
"""

_RELEASE = f"""
WITH changed AS (
    UPDATE jobs SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
        max_attempts = max_attempts + 1, run_at = clock_timestamp(), worker = NULL,
        lease_until = NULL,
        finished_at = CASE WHEN cancel_requested THEN clock_timestamp() END, events = events + 1
    WHERE worker = $1 AND state = 'running'
    RETURNING *
)
{END_AND_NOTIFY}
"""

_RECORD_HEARTBEAT = """
INSERT INTO workers (id, concurrency, started_at, seen_at)
VALUES ($1, $2, clock_timestamp(), clock_timestamp())
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
"""

_REMOVE_WORKER = """
DELETE FROM workers WHERE id = $1 OR seen_at < clock_timestamp() - interval '1 day'
"""

# Run by probes every few seconds: it reads only jobs that have not ended, by their indexes.
_READ_STATE = """
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

_FIND_BLOCKED = """
SELECT count(*) OVER () AS jobs, min(blocked_since) OVER () AS since, error ->> 'detail' AS detail
FROM jobs WHERE state = 'queued' AND blocked_since IS NOT NULL ORDER BY blocked_since LIMIT 1
"""

_COUNT_FAILURES = "SELECT kind, count(*) AS jobs FROM jobs WHERE state = 'failed' GROUP BY kind"

# The CTE is evaluated once; a subquery might be evaluated for each row and exceed the limit.
_DELETE_OLD = """
WITH old AS MATERIALIZED (
    SELECT id FROM jobs WHERE finished_at < clock_timestamp() - make_interval(days => $1)
    LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM jobs USING old WHERE jobs.id = old.id
"""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts that a job has, and the first pause between them, which doubles each time."""

    attempts: int
    backoff_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the configured policy."""
        return cls(settings.job_attempts, settings.job_backoff_seconds)


@dataclass(frozen=True, slots=True)
class QueueState:
    """Numbers of jobs that have not ended, and of live workers."""

    pending: int
    scheduled: int
    blocked: int
    running: int
    oldest_pending_seconds: float | None
    workers: int


@dataclass(frozen=True, slots=True)
class BlockedJobs:
    """Jobs that wait for the configuration: how many, since when, and why the first one does."""

    jobs: int
    since: datetime
    detail: str


async def lock_claims(connection: Connection) -> None:
    """Make other workers wait with their claims until the transaction ends."""
    await connection.execute(_LOCK)


async def claim(
    connection: Connection,
    worker: str,
    *,
    lease_seconds: float,
    concurrency: int,
    max_per_root: int,
    isolated: bool = True,
) -> ClaimedJob | None:
    """Claim the next job; None if none can be started. Needs the lock.

    With `isolated`, it may be one that runs alone in a process.
    """
    row = await connection.fetchrow(
        _CLAIM, worker, lease_seconds, max_per_root, concurrency, isolated
    )
    return ClaimedJob.of_row(row) if row else None


async def find_running(connection: Connection, job_id: str, attempt: int) -> ClaimedJob | None:
    """Return a job if it is running in this attempt."""
    row = await connection.fetchrow(_FIND_RUNNING, job_id, attempt)
    return ClaimedJob.of_row(row) if row else None


async def extend_leases(
    connection: Connection, jobs: Sequence[ClaimedJob], lease_seconds: float
) -> set[tuple[str, int]]:
    """Extend leases; return id and attempt of jobs that are neither lost nor being cancelled."""
    ids, attempts = [job.id for job in jobs], [job.attempt for job in jobs]
    rows = await connection.fetch(_EXTEND_LEASES, ids, attempts, lease_seconds)
    return {(row["id"], row["attempt"]) for row in rows if not row["cancel_requested"]}


async def requeue_lost(
    connection: Connection, retries: RetryPolicy, *, dead_worker: str | None = None
) -> list[str]:
    """Queue the jobs of silent workers again, or end them; return their ids.

    A worker that is known to be dead loses its jobs at once.
    """
    failure = Failure("worker_lost", "The worker stopped in the middle of the job.")
    rows = await connection.fetch(
        _REQUEUE_LOST, failure.to_json(), retries.backoff_seconds, retries.attempts, dead_worker
    )
    return [row["id"] for row in rows]


async def postpone(
    connection: Connection,
    job: ClaimedJob,
    failure: Failure,
    retries: RetryPolicy,
    *,
    isolates: bool,
) -> None:
    """End an attempt without counting it: the job next runs alone, or waits for the operator."""
    await connection.execute(
        _POSTPONE,
        job.id,
        job.attempt,
        failure.to_json(),
        isolates,
        retries.backoff_seconds,
        MAX_BLOCKED_PAUSE_SECONDS,
    )


async def retry_blocked(connection: Connection) -> None:
    """Make jobs that wait for the configuration due now."""
    await connection.execute(_RETRY_BLOCKED)


async def end_attempt(
    connection: Connection,
    job: ClaimedJob,
    failure: Failure,
    retries: RetryPolicy,
    *,
    retry_after: float | None,
) -> None:
    """End an attempt that failed: cancelled if that was requested, queued again, or failed.

    `retry_after` is the minimum pause in seconds; None: another attempt would not help.
    """
    await connection.execute(
        _END_ATTEMPT,
        job.id,
        retries.backoff_seconds,
        retries.attempts,
        job.attempt,
        failure.to_json(),
        retry_after is not None,
        retry_after or 0.0,
    )


async def release(connection: Connection, worker: str) -> None:
    """Queue a worker's running jobs again; these attempts do not count."""
    await connection.execute(_RELEASE, worker)


async def record_heartbeat(connection: Connection, worker: str, concurrency: int) -> None:
    """Record that a worker is alive."""
    await connection.execute(_RECORD_HEARTBEAT, worker, concurrency)


async def remove_worker(connection: Connection, worker: str) -> None:
    """Remove a worker that has ended, and those not seen for a day."""
    await connection.execute(_REMOVE_WORKER, worker)


async def read_state(connection: Connection, alive_seconds: float) -> QueueState:
    """Return the state of the queue; workers seen within `alive_seconds` are alive."""
    row = await connection.fetchrow(_READ_STATE, alive_seconds)
    assert row is not None  # noqa: S101  # an aggregate always has a row
    return QueueState(**row)


async def find_blocked(connection: Connection) -> BlockedJobs | None:
    """Return the jobs that wait for the configuration; None if there are none."""
    row = await connection.fetchrow(_FIND_BLOCKED)
    return BlockedJobs(**row) if row else None


async def count_failures(connection: Connection) -> dict[str, int]:
    """Return the number of failed jobs by kind."""
    return {row["kind"]: row["jobs"] for row in await connection.fetch(_COUNT_FAILURES)}


async def read_overview(
    database: Database, alive_seconds: float
) -> tuple[QueueState, dict[str, int]]:
    """Return the state of the queue, and the number of failed jobs by kind."""
    async with database.connection(ALL_ROOTS) as connection:
        return await read_state(connection, alive_seconds), await count_failures(connection)


async def delete_old(connection: Connection, retention_days: int) -> bool:
    """Delete some jobs that ended long ago; return whether there may be more."""
    deleted = await connection.execute(_DELETE_OLD, retention_days, DELETED_AT_ONCE)
    return deleted == f"DELETE {DELETED_AT_ONCE}"
