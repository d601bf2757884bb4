"""Probes and metrics for operators: whether the server can serve, and the state of its queue."""

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from app.auth.access import Verb
from app.auth.dependencies import (
    GuardedRoute,
    MetricsAccess,
    find_access,
    last_known_access,
    resources_of,
)
from app.auth.errors import ForbiddenError, NotLocalError, UnauthenticatedError
from app.clock import LARGEST_OFFSET_SECONDS
from app.db.database import ALL_ROOTS, Database, DatabaseUnavailableError, DiskFullError
from app.embedded.disk import DiskState
from app.errors import AppError
from app.http.problems import problem_responses
from app.jobs import queue
from app.store.backlog_repository import count_waiting

_PROBE_SECONDS = 1.0
"""Longest wait for the database; canceling the query may take as long again."""

probes = APIRouter(tags=["health"])

metrics = APIRouter(tags=["metrics"], route_class=GuardedRoute)

_GAUGES = {
    "pending": "Jobs that could be started now.",
    "scheduled": "Jobs that start later.",
    "blocked": "Jobs that wait for the operator to correct the configuration.",
    "running": "Jobs that a worker is running.",
    "oldest_pending_seconds": "Time that the oldest pending job has waited.",
    "workers": "Live workers.",
}


class NotReadyError(AppError):
    """The server is not ready, and the caller may not know why."""

    status = 503
    code = "not_ready"
    title = "Not ready"

    def __init__(self) -> None:
        super().__init__("The server is not ready. With an API key, this route says why.")
        self.headers["Retry-After"] = "1"


class Health(BaseModel):
    """Response of a successful probe."""

    ok: bool = Field(True, description="Always true; a failing probe is a problem.")


class Queue(BaseModel):
    """State of the job queue."""

    pending: int = Field(description="Jobs that could be started now.")
    scheduled: int = Field(description="Jobs that start later.")
    blocked: int = Field(
        description="Jobs that wait for the operator to correct the configuration."
    )
    running: int = Field(description="Jobs that a worker is running.")
    oldest_pending_seconds: float | None = Field(
        description="Time that the oldest pending job has waited; null: none is pending."
    )
    workers: int = Field(description="Live workers.")
    failed: int = Field(description="Failed jobs that are kept.")
    warning: str | None = Field(
        description="A problem for the operator to solve; null: there is none."
    )


class ClockState(BaseModel):
    """The machine's clock, compared with the database's, by which items and keys expire."""

    offset_seconds: float = Field(description="How far the machine's clock is ahead.")
    warning: str | None = Field(
        description="A problem for the operator to solve; null: there is none."
    )


class Embeddings(BaseModel):
    """Items that are found by their words only, until their text can be embedded."""

    waiting: int = Field(description="Items that wait for it.")
    warning: str | None = Field(
        description="A problem for the operator to solve; null: there is none."
    )


class DiskReport(BaseModel):
    """The disk of the database."""

    free_bytes: int | None = Field(
        description="Free space; null: the database is not on this machine."
    )
    full: bool = Field(description="Whether writes fail or are refused for lack of space.")
    warning: str | None = Field(
        description="A problem for the operator to solve; null: there is none."
    )


class Readiness(Health):
    """Response of a server that can serve requests, with the state of its jobs."""

    queue: Queue | None = Field(None, description="State of the job queue; absent without a key.")
    clock: ClockState | None = Field(
        None,
        description="This machine's clock compared with the database's; absent without a key.",
    )
    disk: DiskReport | None = Field(
        None, description="The disk of the database; absent without a key."
    )
    embeddings: Embeddings | None = Field(
        None, description="Items that wait for their embedding; absent without a key."
    )


@probes.get(
    "/healthz",
    operation_id="check_health",
    summary="Is the process alive?",
    description="Answers as soon as the process serves requests, without asking the database.",
)
async def check_health() -> Health:
    return Health()


@probes.get(
    "/v1/ok",
    operation_id="check_ok",
    summary="The probe of the LangGraph SDK's tests",
    description="The same as /healthz, at the path that LangGraph's SDKs use.",
)
async def check_ok() -> Health:
    return Health()


@probes.get(
    "/readyz",
    operation_id="check_readiness",
    summary="Does the database answer, and are jobs run?",
    description="Waiting jobs without a live worker do not make the server unready: it serves "
    "everything else, and `queue.warning` reports them. Nor does a full disk, as long as reads are "
    "served; `disk.warning` reports it. If the server has keys, a request without a valid one gets "
    "`ok` alone.",
    responses=problem_responses(
        NotLocalError, DatabaseUnavailableError, DiskFullError, NotReadyError
    ),
    response_model_exclude_unset=True,
)
async def check_readiness(request: Request) -> Readiness:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            access = await find_access(request)
            readiness = await _describe(request)
    except (TimeoutError, DatabaseUnavailableError, DiskFullError) as error:
        if last_known_access(request) is None:
            raise NotReadyError from error
        if isinstance(error, TimeoutError):
            raise DatabaseUnavailableError(error) from error
        raise
    return Readiness(ok=True) if access is None else readiness


async def _describe(request: Request) -> Readiness:
    resources = resources_of(request)
    state, failures = await queue.read_overview(
        resources.database, resources.settings.job_lease_seconds
    )
    waiting = await _count_waiting(resources.database)
    described = {name: getattr(state, name) for name in queue.QueueState.__dataclass_fields__}
    return Readiness(
        ok=True,
        queue=Queue(**described, failed=sum(failures.values()), warning=_warning(state)),
        clock=_clock_state(resources.clock.offset_seconds),
        disk=_disk_report(resources.database.disk.state),
        embeddings=Embeddings(waiting=waiting, warning=_embeddings_warning(waiting, state)),
    )


async def _count_waiting(database: Database) -> int:
    async with database.connection(ALL_ROOTS) as connection:
        return await count_waiting(connection)


def _embeddings_warning(waiting: int, state: queue.QueueState) -> str | None:
    if waiting and not state.workers:
        return "Items wait to be embedded and no worker lives; start one with `memoryd worker`."
    return None


def _warning(state: queue.QueueState) -> str | None:
    if state.pending and not state.workers:
        return "Jobs wait and no worker lives; start one with `memoryd worker`."
    if state.blocked:
        return (
            "Jobs wait for the configuration to be corrected; their `error` and `memoryd doctor` "
            "say what is wrong."
        )
    return None


def _clock_state(offset: float) -> ClockState:
    warning = None
    if abs(offset) > LARGEST_OFFSET_SECONDS:
        warning = (
            "This machine's clock differs from the database's, which is used instead; "
            "synchronize it, such as with NTP."
        )
    return ClockState(offset_seconds=round(offset, 3), warning=warning)


def _disk_report(state: DiskState) -> DiskReport:
    warning = None
    if state.is_full:
        warning = "The disk is full: reads are served, writes are not. Free some space."
    return DiskReport(free_bytes=state.free_bytes, full=state.is_full, warning=warning)


@metrics.get(
    "/metrics",
    operation_id="read_metrics",
    summary="Metrics for Prometheus",
    description="They cover all keys, so they take the grant `metrics` of a key without a root.",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}},
        **problem_responses(
            UnauthenticatedError, ForbiddenError, NotLocalError, DatabaseUnavailableError
        ),
    },
)
async def read_metrics(request: Request, access: MetricsAccess) -> Response:
    if access.root or not access.allows([], Verb.METRICS):
        raise ForbiddenError(access.actor, Verb.METRICS, [])
    resources = resources_of(request)
    alive_seconds = resources.settings.job_lease_seconds
    state, failures = await queue.read_overview(resources.database, alive_seconds)
    waiting = await _count_waiting(resources.database)
    text = _exposition(state, failures, waiting)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _exposition(state: queue.QueueState, failures: Mapping[str, int], waiting: int) -> bytes:
    registry = CollectorRegistry()
    Gauge(
        "memoryd_items_waiting_for_embedding",
        "Items that are found by their words only, until their text can be embedded.",
        registry=registry,
    ).set(waiting)
    for name, help_text in _GAUGES.items():
        value = getattr(state, name)
        Gauge(f"memoryd_jobs_{name}", help_text, registry=registry).set(value or 0)
    failed = Gauge("memoryd_jobs_failed", "Failed jobs that are kept.", ["kind"], registry=registry)
    for kind, number in failures.items():
        failed.labels(kind).set(number)
    return generate_latest(registry)
