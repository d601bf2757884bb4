"""The background process: does jobs, removes what has expired, indexes what others left out."""

import asyncio
import time
from contextlib import suppress

import structlog

from app.db.database import EVERYTHING
from app.errors import AppError
from app.job_kinds import handlers
from app.jobs import queue
from app.jobs.isolation import BuildHandlers, Isolation
from app.jobs.worker import JobWorker
from app.resources import Resources
from app.store.backfill import catch_up
from app.store.expiry import prune_namespaces, sweep

UPKEEP_SECONDS = 3600.0
"""Between walks over whole tables, which the first round begins with."""

_logger = structlog.get_logger("memoryd.worker")


async def run_worker(
    resources: Resources,
    *,
    worker_id: str | None = None,
    build_handlers: BuildHandlers = handlers,
) -> None:
    """Work until cancelled; then finish the jobs that run, or hand them back."""
    upkeep = asyncio.create_task(_keep_up(resources))
    worker = JobWorker(
        resources.database,
        resources.notifier,
        build_handlers(resources),
        resources.settings,
        isolation=Isolation(resources.settings, build_handlers),
        worker_id=worker_id,
    )
    try:
        await worker.run()
    finally:
        upkeep.cancel()
        with suppress(asyncio.CancelledError):
            await upkeep


async def _keep_up(resources: Resources) -> None:
    """Sweep until cancelled; a database that is away for a while is waited for."""
    upkeep_at = 0.0
    while True:
        try:
            removed = await sweep(resources.database, resources.clock.now())
            if removed:
                _logger.info("expired items removed", items=removed)
            if time.monotonic() >= upkeep_at:
                await _walk_tables(resources)
                upkeep_at = time.monotonic() + UPKEEP_SECONDS
        except AppError as error:
            _logger.warning("sweep put off", reason=error.detail)
        except Exception:  # a mistake here is told, and must not end the sweeping
            _logger.exception("sweep failed")
        await asyncio.sleep(resources.settings.sweep_interval_seconds)


async def _walk_tables(resources: Resources) -> None:
    await prune_namespaces(resources.database)
    if indexed := await catch_up(resources):
        _logger.info("items of another configuration indexed", items=indexed)
    async with resources.database.connection(EVERYTHING) as connection:
        while await queue.prune(connection, resources.settings.job_retention_days):
            pass
        await queue.forget_requests(connection)
