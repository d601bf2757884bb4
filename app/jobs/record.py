"""Jobs as records: submitted, claimed by a worker, and read by a client."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from typing_extensions import override

from app.auth.access import Access, Grant, Verb
from app.db.database import Row
from app.json_values import JsonObject, JsonText
from app.namespaces import StoredNamespace


class State(StrEnum):
    """State of a job; the last three are final."""

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
    namespace: StoredNamespace
    request: Mapping[str, Any]
    concurrency_key: str | None = None
    dedupe_key: str | None = None
    manager: str | None = None
    thread_id: str | None = None
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an attempt failed, as it is stored in a job's `error`."""

    code: str
    detail: str

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Read the stored form."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return the stored form."""
        members = {"code": self.code, "detail": self.detail}
        return json.dumps(members, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """A job's calls of models, over all attempts; the cost is None if a price is unknown."""

    model_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that is queued or running."""

    id: str
    state: State
    run_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The columns of a job that decide who sees it and whether to wait for it."""

    namespace: StoredNamespace
    actor: str
    state: State
    blocked_since: datetime | None

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `jobs`."""
        return cls(**_values(row, cls))

    @property
    def is_settled(self) -> bool:
        """True if workers no longer change the job."""
        return self.state in SETTLED

    @property
    def is_blocked(self) -> bool:
        """True if the job waits for the operator to correct the configuration."""
        return self.state is State.QUEUED and self.blocked_since is not None

    def is_visible_to(self, access: Access) -> bool:
        """Return whether a caller may see the job: it has `jobs` on the job's namespace."""
        return self.namespace.startswith(access.root) and access.allows(
            access.relative(self.namespace), Verb.JOBS
        )

    def is_readable_by(self, access: Access) -> bool:
        """Return whether a caller who sees the job may see what it found, proposed, and reported.

        These are data of the job's namespace, so they take `read` there. The key that submitted
        the job sees them too: the job reads nothing that was not granted to that key.
        """
        return self.actor == access.actor or access.allows(
            access.relative(self.namespace), Verb.READ
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord(JobState):
    """A job as clients read it; `result` is None also if it was not fetched."""

    id: str
    kind: str
    manager: str | None
    thread_id: str | None
    attempt: int
    max_attempts: int
    cancel_requested: bool
    error: Failure | None
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    usage: ModelUsage
    result: JsonText | None = None

    @classmethod
    @override
    def of_row(cls, row: Row) -> Self:
        """Read a row of `jobs` joined with the usage of models."""
        usage = ModelUsage(**{field.name: row[field.name] for field in fields(ModelUsage)})
        return cls(**_values(row, cls), usage=usage)

    @property
    def result_object(self) -> JsonObject:
        """The result, parsed; empty if there is none."""
        return {} if self.result is None else json.loads(self.result)


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job as the worker that runs it needs it."""

    id: str
    namespace: StoredNamespace
    access: Access
    kind: str
    request: JsonObject
    attempt: int
    max_attempts: int
    isolated: bool

    @property
    def is_last_attempt(self) -> bool:
        """True if no other attempt follows when this one fails."""
        return self.attempt >= self.max_attempts

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `jobs`."""
        return cls(
            id=row["id"],
            namespace=row["namespace"],
            access=Access(row["actor"], row["root"], _grants(row["grants"])),
            kind=row["kind"],
            request=json.loads(row["request"]),
            attempt=row["attempt"],
            max_attempts=row["max_attempts"],
            isolated=row["isolated"],
        )


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event that a job reported; `data` is a JSON object."""

    number: int
    event: str
    data: JsonText
    recorded_at: datetime

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `job_events`."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def members(self, *, is_readable: bool) -> JsonObject:
        """Return the event for a client, without the data if the client may not read it."""
        data = json.loads(self.data) if is_readable else {}
        return {"event": self.event, "data": data, "at": self.recorded_at}


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
        conditions = (
            ("state =", "text", self.state),
            ("kind =", "text", self.kind),
            ("error ->> 'code' =", "text", self.error_code),
            ("created_at >=", "timestamptz", self.created_after),
            ("created_at <", "timestamptz", self.created_before),
        )
        return (condition for condition in conditions if condition[2] is not None)


_NOT_COLUMNS = {"usage", "result"}
"""Fields of a `JobRecord` that are read apart; requests and results may be megabytes long."""


def _columns(record: type[JobState]) -> list[str]:
    return [field.name for field in fields(record) if field.name not in _NOT_COLUMNS]


STATE_COLUMNS = ", ".join(_columns(JobState))
RECORD_COLUMNS = ", ".join(_columns(JobRecord))
CLAIMED_COLUMNS = (
    "id, namespace, root, actor, grants, kind, request, attempt, max_attempts, isolated"
)
"""The columns that `JobState`, `JobRecord`, and `ClaimedJob` are read from."""


def new_job_id() -> str:
    """Return an id that sorts by the time of its creation."""
    return f"job_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def grants_json(access: Access) -> str:
    """Return a caller's grants as they are stored with a job."""
    return json.dumps([{"prefix": g.prefix, "verbs": sorted(g.verbs)} for g in access.grants])


def _values(row: Row, record: type[JobState]) -> dict[str, Any]:
    values = {name: row[name] for name in _columns(record)}
    values["state"] = State(row["state"])
    if values.get("error") is not None:
        values["error"] = Failure.of_json(row["error"])
    return values


def _grants(text: str) -> tuple[Grant, ...]:
    return tuple(
        Grant(tuple(grant["prefix"]), frozenset(map(Verb, grant["verbs"])))
        for grant in json.loads(text)
    )
