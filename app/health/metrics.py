"""Metrics for Prometheus."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from app.auth.access import Verb
from app.auth.dependencies import GuardedRoute, MetricsAccess, resources_of
from app.auth.errors import ForbiddenError, NotLocalError, UnauthenticatedError
from app.db.database import DatabaseUnavailableError
from app.http.problems import problem_responses
from app.jobs import queue

router = APIRouter(tags=["metrics"], route_class=GuardedRoute)

_GAUGES = {
    "pending": "Jobs that could be started now.",
    "scheduled": "Jobs that start later.",
    "blocked": "Jobs that wait for the operator to correct the configuration.",
    "running": "Jobs that a worker is running.",
    "oldest_pending_seconds": "Time that the oldest pending job has waited.",
    "workers": "Live workers.",
}


@router.get(
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
    text = _exposition(*await queue.read_overview(resources.database, alive_seconds))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _exposition(state: queue.QueueState, failures: Mapping[str, int]) -> bytes:
    registry = CollectorRegistry()
    for name, help_text in _GAUGES.items():
        value = getattr(state, name)
        Gauge(f"memoryd_jobs_{name}", help_text, registry=registry).set(value or 0)
    failed = Gauge("memoryd_jobs_failed", "Failed jobs that are kept.", ["kind"], registry=registry)
    for kind, number in failures.items():
        failed.labels(kind).set(number)
    return generate_latest(registry)
