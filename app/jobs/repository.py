"""SQL on jobs, their events, model calls, and rate limits, except for that of the queue.

Times are the database's, which every server and worker shares.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.auth.access import Access
from app.auth.errors import TooManyRequestsError
from app.db.database import Connection, Parameters
from app.db.notifier import CANCEL, CHANGED, WORK
from app.db.pages import Page
from app.jobs.record import (
    RECORD_COLUMNS,
    STATE_COLUMNS,
    ActiveJob,
    ClaimedJob,
    JobEvent,
    JobRecord,
    JobState,
    NewJob,
    Selection,
    State,
    grants_json,
    new_job_id,
)
from app.json_values import JsonText
from app.namespaces import Range
from app.providers.llm import Completion

URGENT, BACKGROUND = 0, 1
"""Priorities: whether a client waits for the job."""

# Follows a CTE `changed` with the rows of jobs after the change.
RECORD_AND_NOTIFY = f"""
, recorded AS (
    INSERT INTO job_events (job_id, number, namespace, event, data, recorded_at)
    SELECT id, events, namespace, state, CASE WHEN state = 'queued'
        THEN jsonb_build_object('run_at', run_at) ELSE '{{}}' END, clock_timestamp() FROM changed
)
SELECT id, pg_notify('{CHANGED}', id),
    CASE WHEN state = 'queued' AND run_at <= clock_timestamp() THEN pg_notify('{WORK}', '') END
FROM changed
"""

# The same for changes that may end jobs, which need the replies kept with them no more.
END_AND_NOTIFY = f"""
, forgotten AS (
    DELETE FROM job_replies USING changed
    WHERE job_replies.job_id = changed.id AND changed.state NOT IN ('queued', 'running')
)
{RECORD_AND_NOTIFY}
"""

_NEW = """
INSERT INTO jobs (
    id, namespace, root, actor, grants, kind, state, request, manager, thread_id, concurrency_key,
    dedupe_key, priority, max_attempts, run_at, created_at, events
) VALUES (
    $1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9, $10, $11, $12, $13,
    clock_timestamp() + make_interval(secs => $14), clock_timestamp(), 1
)
"""

_CREATE = f"WITH changed AS ({_NEW} RETURNING *) {RECORD_AND_NOTIFY}"

# A job that is already due keeps its place in the queue.
_CREATE_OR_MOVE = f"""
WITH changed AS (
    {_NEW}
    ON CONFLICT (root, dedupe_key, namespace, kind)
        WHERE state = 'queued' AND attempt = 0 AND dedupe_key IS NOT NULL
    DO UPDATE SET request = excluded.request,
        run_at = CASE WHEN excluded.run_at <= clock_timestamp()
            THEN least(jobs.run_at, excluded.run_at) ELSE excluded.run_at END,
        manager = excluded.manager, concurrency_key = excluded.concurrency_key,
        actor = excluded.actor, grants = excluded.grants, events = jobs.events + 1
    RETURNING *
)
{RECORD_AND_NOTIFY}
"""

_EVENT = f"""
WITH changed AS (
    UPDATE jobs SET events = events + 1
    WHERE id = $1 AND attempt = $2 AND state = 'running' RETURNING id, events, namespace
), recorded AS (
    INSERT INTO job_events (job_id, number, namespace, event, data, recorded_at)
    SELECT id, events, namespace, $3, $4, clock_timestamp() FROM changed
)
SELECT pg_notify('{CHANGED}', id) FROM changed
"""

_CALL = """
WITH called AS (
    UPDATE jobs SET calls = calls + 1 WHERE id = $1 RETURNING id, calls, namespace
)
INSERT INTO model_calls (
    job_id, number, namespace, attempt, purpose, model, finish_reason, input_tokens,
    output_tokens, cached_tokens, cost_usd, milliseconds, recorded_at
)
SELECT id, calls, namespace, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp() FROM called
"""

_FINISH = f"""
WITH changed AS (
    UPDATE jobs SET state = $3, result = $4, error = NULL, worker = NULL, lease_until = NULL,
        finished_at = CASE WHEN $3 <> 'awaiting_review' THEN clock_timestamp() END,
        blocked_since = NULL, events = events + 1
    WHERE id = $1 AND attempt = $2 AND state = 'running' AND NOT cancel_requested
    RETURNING *
)
{END_AND_NOTIFY}
"""

_SETTLE = f"""
WITH changed AS (
    UPDATE jobs SET state = $3, result = $4, events = events + 1,
        finished_at = coalesce(finished_at, clock_timestamp())
    WHERE id = $1 AND state = $2 RETURNING *
)
{RECORD_AND_NOTIFY}
"""

# Queued jobs end immediately, running ones when their worker has stopped.
_CANCEL = f"""
WITH changed AS (
    UPDATE jobs SET cancel_requested = true, events = events + 1,
        state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
        finished_at = CASE WHEN state = 'running' THEN NULL ELSE clock_timestamp() END
    WHERE id = $1 AND state IN ('queued', 'running') AND NOT cancel_requested
    RETURNING *
), recorded AS (
    INSERT INTO job_events (job_id, number, namespace, event, data, recorded_at)
    SELECT id, events, namespace, CASE WHEN state = 'running' THEN 'cancelling' ELSE state END,
        '{{}}', clock_timestamp() FROM changed
), forgotten AS (
    DELETE FROM job_replies USING changed
    WHERE job_replies.job_id = changed.id AND changed.state = 'cancelled'
)
SELECT pg_notify('{CHANGED}', id),
    CASE WHEN state = 'running' THEN pg_notify('{CANCEL}', id) END FROM changed
"""

_REQUEUED = """
state = 'queued', run_at = clock_timestamp(), cancel_requested = false,
max_attempts = attempt + {attempts}, result = NULL, error = NULL, finished_at = NULL,
blocked_since = NULL, events = events + 1
"""

_REQUEUE = f"""
WITH changed AS (
    UPDATE jobs SET {_REQUEUED.format(attempts="$2")}
    WHERE id = $1 AND state IN ('failed', 'cancelled') RETURNING *
)
{RECORD_AND_NOTIFY}
"""

_EXPEDITE = f"""
WITH changed AS (
    UPDATE jobs SET run_at = clock_timestamp(), events = events + 1, priority = {URGENT}
    WHERE id = $1 AND state = 'queued' RETURNING *
)
{RECORD_AND_NOTIFY}
"""

USAGE = """
SELECT count(*) AS model_calls, coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
    CASE WHEN bool_and(cost_usd IS NOT NULL) THEN sum(cost_usd) WHEN count(*) = 0 THEN 0 END
        AS cost_usd
FROM model_calls WHERE job_id = jobs.id
"""

_FIND = f"""
SELECT {RECORD_COLUMNS}, result, usage.* FROM jobs, LATERAL ({USAGE}) AS usage WHERE id = $1
"""

_FIND_STATE = f"SELECT {STATE_COLUMNS} FROM jobs WHERE id = $1"

_FIND_ACTIVE = """
SELECT id, state, run_at FROM jobs
WHERE root = $1 AND thread_id = $2 AND namespace = $3 AND kind = $4
    AND state IN ('queued', 'running')
ORDER BY state, run_at
"""

_SET_FOLLOW_UP = """
UPDATE jobs SET result = result || jsonb_build_object('follow_up_job_id', $2::text) WHERE id = $1
"""

_FIND_RESULT = "SELECT result FROM jobs WHERE id = $1"

# Leaves out jobs with a dedupe key that were cancelled before they started: the queue may already
# hold one with the same key, and takes only one.
_REQUEUE_ALL = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM jobs
    WHERE {conditions} AND (dedupe_key IS NULL OR attempt > 0)
    ORDER BY id LIMIT {limit} FOR UPDATE SKIP LOCKED
), changed AS (
    UPDATE jobs SET {changes} FROM chosen WHERE jobs.id = chosen.id RETURNING jobs.*
)
{record_and_notify}
"""

_EVENTS = """
SELECT number, event, data, recorded_at FROM job_events
WHERE job_id = $1 AND number > $2 ORDER BY number LIMIT 100
"""

# The rate limit of submissions: one token bucket per key, shared by all processes.
_REFILLED = (
    "least($2::float8, rates.tokens + $2::float8 / 60 * greatest(0, "
    "extract(epoch FROM statement_timestamp() - rates.updated_at)))"
)

_TAKE_TOKENS = f"""
INSERT INTO job_rates AS rates (actor, tokens, updated_at)
VALUES ($1, $2::float8 - $3::int, statement_timestamp())
ON CONFLICT (actor) DO UPDATE SET tokens = {_REFILLED} - $3::int, updated_at = excluded.updated_at
    WHERE {_REFILLED} >= $3::int
RETURNING tokens
"""

_TOKENS_LEFT = f"SELECT floor({_REFILLED})::int FROM job_rates AS rates WHERE actor = $1 FOR UPDATE"

_SECONDS_TO_NEXT_TOKEN = (
    f"SELECT (1 - {_REFILLED}) * 60 / $2::float8 FROM job_rates AS rates WHERE actor = $1"
)

MAX_EVENT_BYTES = 16_384
"""Maximum size of an event's data; a page of events is at most 100 times as long."""


async def insert(
    connection: Connection, access: Access, new: NewJob, *, priority: int, max_attempts: int
) -> str:
    """Store a job in the caller's transaction; return its id. Workers are notified at commit."""
    job_id = new_job_id()
    await connection.fetchval(_CREATE, job_id, *_columns(access, new, priority, max_attempts))
    return job_id


async def insert_or_move(
    connection: Connection, access: Access, new: NewJob, *, max_attempts: int
) -> tuple[str, bool]:
    """Store the one queued job with its `dedupe_key`, or move the start of the one there is.

    Returns its id, and whether it is new.
    """
    new_id = new_job_id()
    job_id: str = await connection.fetchval(
        _CREATE_OR_MOVE, new_id, *_columns(access, new, BACKGROUND, max_attempts)
    )
    return job_id, job_id == new_id


def _columns(access: Access, new: NewJob, priority: int, max_attempts: int) -> tuple[Any, ...]:
    return (
        new.namespace,
        access.root,
        access.actor,
        grants_json(access),
        new.kind,
        json.dumps(new.request, ensure_ascii=False),
        new.manager,
        new.thread_id,
        new.concurrency_key,
        new.dedupe_key,
        priority,
        max_attempts,
        new.delay_seconds,
    )


async def find(connection: Connection, job_id: str) -> JobRecord | None:
    """Return a job with its result."""
    row = await connection.fetchrow(_FIND, job_id)
    return replace(JobRecord.of_row(row), result=row["result"]) if row else None


async def find_state(connection: Connection, job_id: str) -> JobState | None:
    """Return a job's state, without the rest of the job."""
    row = await connection.fetchrow(_FIND_STATE, job_id)
    return JobState.of_row(row) if row else None


async def find_result(connection: Connection, job_id: str) -> JsonText | None:
    """Return a job's result."""
    text: JsonText | None = await connection.fetchval(_FIND_RESULT, job_id)
    return text


async def find_page(
    connection: Connection,
    namespaces: Range,
    *,
    equal: Mapping[str, str],
    before: str | None,
    limit: int,
) -> Page[JobRecord]:
    """Return a page of jobs at or below a namespace, newest first, without their results.

    `equal` names columns and values.
    """
    parameters = Parameters()
    conditions = [
        f"namespace >= {parameters.add(namespaces.low, 'text')}",
        f"namespace < {parameters.add(namespaces.high, 'text')}",
        *(f"{column} = {parameters.add(value, 'text')}" for column, value in equal.items()),
    ]
    if before is not None:
        conditions.append(f"id < {parameters.add(before, 'text')}")
    page = (
        f"SELECT {RECORD_COLUMNS} FROM jobs WHERE {' AND '.join(conditions)} "
        f"ORDER BY id DESC LIMIT {parameters.add(limit + 1, 'int')}"
    )
    rows = await connection.fetch(
        f"SELECT {RECORD_COLUMNS}, usage.* FROM ({page}) AS jobs, LATERAL ({USAGE}) AS usage "
        "ORDER BY id DESC",
        *parameters.values,
    )
    return Page.cut([JobRecord.of_row(row) for row in rows], limit)


async def find_events(connection: Connection, job_id: str, after: int) -> list[JobEvent]:
    """Return up to 100 events of a job after an event's number, oldest first."""
    return [JobEvent.of_row(row) for row in await connection.fetch(_EVENTS, job_id, after)]


async def add_event(
    connection: Connection, job: ClaimedJob, event: str, data: Mapping[str, Any]
) -> bool:
    """Store an event of a running job; False if this attempt no longer has the job."""
    text = json.dumps(data)
    if len(text) > MAX_EVENT_BYTES:
        text = json.dumps({"omitted_bytes": len(text)})
    row = await connection.fetchrow(_EVENT, job.id, job.attempt, event, text)
    return row is not None


async def add_call(
    connection: Connection, job: ClaimedJob, purpose: str, completion: Completion, milliseconds: int
) -> None:
    """Store a model call, even if the job was lost since: the call was paid for."""
    usage = completion.usage
    await connection.execute(
        _CALL,
        job.id,
        job.attempt,
        purpose,
        completion.model,
        completion.finish_reason,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cost_usd,
        milliseconds,
    )


async def finish(
    connection: Connection, job: ClaimedJob, state: State, result: Mapping[str, Any]
) -> bool:
    """End a running job; False if this attempt no longer has it, or it is being cancelled."""
    text = json.dumps(result, ensure_ascii=False)
    row = await connection.fetchrow(_FINISH, job.id, job.attempt, state, text)
    return row is not None


async def settle(
    connection: Connection, job_id: str, seen: State, state: State, result: Mapping[str, Any]
) -> bool:
    """Change the state of a job that no worker has; False if it is no longer in the state seen."""
    text = json.dumps(result, ensure_ascii=False)
    return await connection.fetchrow(_SETTLE, job_id, seen, state, text) is not None


async def find_active(
    connection: Connection, root: str, thread_id: str, namespace: str, kind: str
) -> list[ActiveJob]:
    """Return a thread's unfinished jobs of a kind: queued ones first, the next one first."""
    rows = await connection.fetch(_FIND_ACTIVE, root, thread_id, namespace, kind)
    return [ActiveJob(row["id"], State(row["state"]), row["run_at"]) for row in rows]


async def set_follow_up(connection: Connection, job_id: str, follow_up: str) -> None:
    """Add the job that continues a job to its result."""
    await connection.execute(_SET_FOLLOW_UP, job_id, follow_up)


async def request_cancel(connection: Connection, job_id: str) -> None:
    """Cancel a job that has not ended, immediately or as soon as its worker is notified."""
    await connection.execute(_CANCEL, job_id)


async def requeue(connection: Connection, job_id: str, attempts: int) -> bool:
    """Queue a failed or cancelled job for more attempts; False in another state."""
    return await connection.fetchrow(_REQUEUE, job_id, attempts) is not None


async def requeue_all(
    connection: Connection, namespaces: Range, selected: Selection, attempts: int
) -> int:
    """Queue failed or cancelled jobs for more attempts, oldest first; return their number."""
    parameters = Parameters()
    conditions = [
        f"namespace >= {parameters.add(namespaces.low, 'text')}",
        f"namespace < {parameters.add(namespaces.high, 'text')}",
        *(
            f"{condition} {parameters.add(value, cast)}"
            for condition, cast, value in selected.conditions()
        ),
    ]
    statement = _REQUEUE_ALL.format(
        conditions=" AND ".join(conditions),
        limit=parameters.add(selected.limit, "int"),
        changes=_REQUEUED.format(attempts=parameters.add(attempts, "int")),
        record_and_notify=RECORD_AND_NOTIFY,
    )
    return len(await connection.fetch(statement, *parameters.values))


async def expedite(connection: Connection, job_id: str) -> bool:
    """Let a queued job start now; False in another state."""
    return await connection.fetchrow(_EXPEDITE, job_id) is not None


async def take_tokens(connection: Connection, access: Access, jobs: int = 1) -> None:
    """Count jobs in the transaction that submits them; raises TooManyRequestsError.

    If the transaction is rolled back, nothing is counted.
    """
    limit = access.jobs_per_minute
    if (
        limit is not None
        and await connection.fetchval(_TAKE_TOKENS, access.actor, limit, jobs) is None
    ):
        raise await _rate_exceeded(connection, access, limit)


async def available_tokens(connection: Connection, access: Access, most: int) -> int:
    """Return how many jobs, up to `most`, may be submitted now; TooManyRequestsError if none.

    Locks the key's bucket until the end of the transaction.
    """
    limit = access.jobs_per_minute
    if limit is None:
        return most
    left: int | None = await connection.fetchval(_TOKENS_LEFT, access.actor, limit)
    if left == 0:
        raise await _rate_exceeded(connection, access, limit)
    return min(most, limit if left is None else left)


async def _rate_exceeded(
    connection: Connection, access: Access, limit: int
) -> TooManyRequestsError:
    seconds = await connection.fetchval(_SECONDS_TO_NEXT_TOKEN, access.actor, limit)
    return TooManyRequestsError(access.actor, limit, "job", max(1, math.ceil(seconds)))
