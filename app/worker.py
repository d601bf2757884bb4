"""The background process: removes what has expired."""

import asyncio
import time

import structlog

from app.errors import AppError
from app.resources import Resources
from app.store.expiry import prune_namespaces, sweep

PRUNE_SECONDS = 3600.0

_logger = structlog.get_logger("memoryd.worker")


async def run_worker(resources: Resources) -> None:
    """Work until cancelled; a database that is away for a while is waited for."""
    prune_at = 0.0
    while True:
        try:
            removed = await sweep(resources.database, resources.clock.now())
            if removed:
                _logger.info("expired items removed", items=removed)
            if time.monotonic() >= prune_at:
                await prune_namespaces(resources.database)
                prune_at = time.monotonic() + PRUNE_SECONDS
        except AppError as error:
            _logger.warning("sweep put off", reason=error.detail)
        except Exception:  # a mistake here is told, and must not end the sweeping
            _logger.exception("sweep failed")
        await asyncio.sleep(resources.settings.sweep_interval_seconds)
