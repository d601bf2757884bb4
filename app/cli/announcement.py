"""Log lines about a process at its start."""

from importlib.metadata import version

import structlog

from app.config import unknown_variables
from app.db.connections import address_of
from app.db.database import ALL_ROOTS
from app.jobs import queue
from app.resources import Resources

_logger = structlog.get_logger("memoryd")


def warn_of_unknown_variables() -> None:
    """Warn about variables named like settings that memoryd does not have."""
    for problem in unknown_variables():
        _logger.warning("unknown setting", problem=problem)


async def announce_server(resources: Resources, *, is_embedded: bool) -> None:
    """Log the server's version, address, database, models, and workers."""
    settings = resources.settings
    if is_embedded:
        worker = "a process of this server"
    else:
        state, _ = await queue.read_overview(resources.database, settings.job_lease_seconds)
        worker = f"{state.workers} alive" if state.workers else "none; start `memoryd worker`"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _logger.info(
        "memoryd starts",
        url=f"http://{host}:{settings.port}",
        worker=worker,
        **await _described(resources, is_embedded=is_embedded),
    )


async def _described(resources: Resources, *, is_embedded: bool) -> dict[str, str]:
    settings = resources.settings
    async with resources.database.connection(ALL_ROOTS) as connection:
        server = await connection.fetchval("SELECT current_setting('server_version')")
    place = (
        f"embedded in {settings.data_dir}"
        if is_embedded
        else f"at {address_of(str(settings.database_url))}"
    )
    return {
        "version": version("memoryd"),
        "database": f"PostgreSQL {server.split()[0]} {place}",
        "llm": settings.llm or "none",
        "embedding": settings.embedding,
    }
