"""The loops of a worker: jobs, and the upkeep of tables (expired items, old jobs, the backfill)."""

import time

import structlog

from app.background import background, repeat
from app.db.database import ALL_ROOTS
from app.db.idempotency import delete_old_answers
from app.job_kinds import handlers
from app.jobs import queue
from app.jobs.isolation import BuildHandlers, Isolation
from app.jobs.worker import JobWorker
from app.resources import Resources
from app.store.namespace_repository import prune_namespaces
from app.store.reindex import catch_up
from app.store.repository import sweep

WALK_SECONDS = 3600.0
"""Pause between walks over whole tables; the first one is at the start."""

_logger = structlog.get_logger("memoryd.worker")


async def run_worker(
    resources: Resources,
    *,
    worker_id: str | None = None,
    build_handlers: BuildHandlers = handlers,
) -> None:
    """Work until canceled; then finish the running jobs, or hand them back."""
    worker = JobWorker.build(
        resources,
        build_handlers(resources),
        isolation=Isolation(resources.settings, build_handlers),
        worker_id=worker_id,
    )
    upkeep = Upkeep(resources)
    seconds = resources.settings.sweep_interval_seconds
    async with background(repeat("upkeep", upkeep.run, seconds=seconds)):
        await worker.run()


class Upkeep:
    """Removes expired items at every run, and now and then walks over whole tables."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._next_walk = 0.0

    async def run(self) -> None:
        """Do what is due."""
        resources = self._resources
        if removed := await sweep(resources.database, resources.clock.now()):
            _logger.info("expired items removed", items=removed)
        if time.monotonic() >= self._next_walk:
            await _walk_tables(resources)
            self._next_walk = time.monotonic() + WALK_SECONDS


async def _walk_tables(resources: Resources) -> None:
    await prune_namespaces(resources.database)
    if indexed := await catch_up(resources):
        _logger.info("items of another configuration indexed", items=indexed)
    async with resources.database.connection(ALL_ROOTS) as connection:
        while await queue.delete_old(connection, resources.settings.job_retention_days):
            pass
        await delete_old_answers(connection)
