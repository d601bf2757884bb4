"""The background process: removes what has expired, indexes what others left out."""

import asyncio
import time

import structlog

from app.errors import AppError
from app.resources import Resources
from app.store.expiry import prune_namespaces, sweep
from app.store.filling import catch_up

UPKEEP_SECONDS = 3600.0
"""Between walks over whole tables, which the first round begins with."""

_logger = structlog.get_logger("memoryd.worker")


async def run_worker(resources: Resources) -> None:
    """Work until cancelled; a database that is away for a while is waited for."""
    upkeep_at = 0.0
    while True:
        try:
            removed = await sweep(resources.database, resources.clock.now())
            if removed:
                _logger.info("expired items removed", items=removed)
            if time.monotonic() >= upkeep_at:
                await prune_namespaces(resources.database)
                if indexed := await catch_up(resources):
                    _logger.info("items of another configuration indexed", items=indexed)
                upkeep_at = time.monotonic() + UPKEEP_SECONDS
        except AppError as error:
            _logger.warning("sweep put off", reason=error.detail)
        except Exception:  # a mistake here is told, and must not end the sweeping
            _logger.exception("sweep failed")
        await asyncio.sleep(resources.settings.sweep_interval_seconds)
