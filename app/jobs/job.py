"""A job: what is asked, on whose behalf, and how far it has come."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from app.auth.access import Access, Grant, Verb
from app.db.database import Row


class State(StrEnum):
    """Where a job stands; the last three are its end."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_REVIEW = "awaiting_review"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
SETTLED = FINISHED | {State.AWAITING_REVIEW}
"""States that a worker no longer changes."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit; `namespace` is a stored namespace.

    Jobs with the same `concurrency_key` run one after another. Of jobs of one kind and namespace
    with the same `dedupe_key`, at most one that was never started is queued.
    """

    kind: str
    namespace: str
    request: Mapping[str, Any]
    concurrency_key: str | None = None
    dedupe_key: str | None = None
    manager: str | None = None
    thread_id: str | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that select ended jobs; None matches all."""

    state: State
    kind: str | None
    error_code: str | None
    created_after: datetime | None
    created_before: datetime | None
    limit: int

    def conditions(self) -> Iterator[tuple[str, str, Any]]:
        """Yield SQL conditions: the left side with its operator, the type, and the value."""
        wanted = (
            ("state =", "text", self.state),
            ("kind =", "text", self.kind),
            ("error ->> 'code' =", "text", self.error_code),
            ("created_at >=", "timestamptz", self.created_after),
            ("created_at <", "timestamptz", self.created_before),
        )
        return (condition for condition in wanted if condition[2] is not None)


@dataclass(frozen=True, slots=True)
class Job:
    """A stored job."""

    id: str
    namespace: str
    access: Access
    kind: str
    state: State
    request: dict[str, Any]
    manager: str | None
    thread_id: str | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    isolated: bool
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `jobs`."""
        return cls(
            id=row["id"],
            namespace=row["namespace"],
            access=Access(row["actor"], row["root"], _grants(row["grants"])),
            kind=row["kind"],
            state=State(row["state"]),
            request=json.loads(row["request"]),
            manager=row["manager"],
            thread_id=row["thread_id"],
            attempt=row["attempt"],
            max_attempts=row["max_attempts"],
            cancel_requested=row["cancel_requested"],
            isolated=row["isolated"],
            result=_object(row["result"]),
            error=_object(row["error"]),
            run_at=row["run_at"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
        )


COLUMNS = (
    "id, namespace, root, actor, grants, kind, state, request, manager, thread_id, attempt, "
    "max_attempts, cancel_requested, isolated, blocked_since, result, error, run_at, created_at, "
    "started_at, finished_at"
)
"""What `Job.of_row` reads."""

SHOWN_COLUMNS = (
    "id, namespace, actor, kind, state, manager, thread_id, attempt, max_attempts, "
    "cancel_requested, blocked_since, error, run_at, created_at, started_at, finished_at"
)
"""What clients see of a job, except its result; requests and results may be megabytes long."""


def new_job_id() -> str:
    """Return an id that sorts by the time it was made."""
    return f"job_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def grants_json(access: Access) -> str:
    """Return a caller's grants as they are kept with a job."""
    return json.dumps([{"prefix": g.prefix, "verbs": sorted(g.verbs)} for g in access.grants])


def _grants(text: str) -> tuple[Grant, ...]:
    return tuple(
        Grant(tuple(grant["prefix"]), frozenset(map(Verb, grant["verbs"])))
        for grant in json.loads(text)
    )


def _object(text: str | None) -> dict[str, Any] | None:
    return None if text is None else dict(json.loads(text))
