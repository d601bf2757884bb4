"""Probes: whether the process is alive, whether it can do its work, and how work stands."""

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from app.clock import LARGEST_OFFSET_SECONDS
from app.db import EVERYTHING, DatabaseUnavailableError
from app.dependencies import resources_of
from app.jobs import queue
from app.problems import problem_responses

_PROBE_SECONDS = 1.0
"""Longest wait for the database; PostgreSQL gets as long again to confirm that it stopped."""

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer of a probe that went well."""

    ok: bool = Field(True, description="Always true; a failing probe is a problem.")


class Queue(BaseModel):
    """How much work waits, and whether anybody does it."""

    waiting: int = Field(description="Jobs that could be started now.")
    scheduled: int = Field(description="Jobs that are to start later.")
    running: int = Field(description="Jobs that a worker has.")
    oldest_seconds: float | None = Field(
        description="How long the oldest waiting job has waited; null: none waits."
    )
    workers: int = Field(description="Workers that live.")
    failed: int = Field(description="Failed jobs that are kept.")
    warning: str | None = Field(description="What an operator should look at; null: nothing.")


class ClockState(BaseModel):
    """The machine's clock, compared with the database's, which decides about expiry."""

    offset_seconds: float = Field(description="How far the machine's clock is ahead.")
    warning: str | None = Field(description="What an operator should look at; null: nothing.")


class Readiness(Health):
    """The answer of a server that can serve, and how its jobs stand."""

    queue: Queue = Field(description="How jobs stand.")
    clock: ClockState = Field(description="How this machine's clock compares to the database's.")


@router.get("/healthz", operation_id="check_health", summary="Is the process alive?")
async def check_health() -> Health:
    return Health()


@router.get("/v1/ok", operation_id="check_ok", summary="What the LangGraph SDK's tests probe")
async def check_ok() -> Health:
    return Health()


@router.get(
    "/readyz",
    operation_id="check_readiness",
    summary="Does the database answer, and are jobs done?",
    description="Jobs that wait while no worker lives do not make the server unready: it serves "
    "all else. `queue.warning` says so.",
    responses=problem_responses(DatabaseUnavailableError),
)
async def check_readiness(request: Request) -> Readiness:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            state, failures = await _queue(request)
    except TimeoutError as error:
        raise DatabaseUnavailableError(error) from error
    described = {name: getattr(state, name) for name in queue.QueueState.__dataclass_fields__}
    return Readiness(
        queue=Queue(**described, failed=sum(failures.values()), warning=_warning(state)),
        clock=_clock_state(resources_of(request).clock.offset_seconds),
    )


@router.get(
    "/metrics",
    operation_id="read_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}},
        **problem_responses(DatabaseUnavailableError),
    },
)
async def read_metrics(request: Request) -> Response:
    state, failures = await _queue(request)
    registry = CollectorRegistry()
    for name, help_text in _GAUGES.items():
        value = getattr(state, name)
        Gauge(f"memoryd_jobs_{name}", help_text, registry=registry).set(value or 0)
    failed = Gauge("memoryd_jobs_failed", "Failed jobs that are kept.", ["kind"], registry=registry)
    for kind, number in failures.items():
        failed.labels(kind).set(number)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


_GAUGES = {
    "waiting": "Jobs that could be started now.",
    "scheduled": "Jobs that are to start later.",
    "running": "Jobs that a worker has.",
    "oldest_seconds": "How long the oldest waiting job has waited.",
    "workers": "Workers that live.",
}


async def _queue(request: Request) -> tuple[queue.QueueState, Mapping[str, int]]:
    resources = resources_of(request)
    async with resources.database.connection(EVERYTHING) as connection:
        state = await queue.state(connection, resources.settings.job_lease_seconds)
        return state, await queue.failures(connection)


def _warning(state: queue.QueueState) -> str | None:
    if state.waiting and not state.workers:
        return "Jobs wait and no worker lives; start one with `memoryd worker`."
    return None


def _clock_state(offset: float) -> ClockState:
    warning = None
    if abs(offset) > LARGEST_OFFSET_SECONDS:
        warning = (
            "This machine's clock differs from the database's, which is used instead; "
            "synchronize it, such as with NTP."
        )
    return ClockState(offset_seconds=round(offset, 3), warning=warning)
