"""Disk usage of a filled database, and memory of the processes."""

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from app.db.database import ALL_ROOTS, Connection, Database
from benchmarks.measure import table

SETTINGS = ["shared_buffers", "effective_cache_size", "maintenance_work_mem", "work_mem"]

_SIZES = """
SELECT relname AS name, CASE WHEN relkind = 'r' THEN pg_table_size(oid)
    ELSE pg_relation_size(oid) END AS bytes
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
    AND relpages > 100
ORDER BY bytes DESC
"""


async def sizes(connection: Connection, passages: int) -> str:
    """Format the size of each table and index, except for the smallest."""
    rows = [(row["name"], row["bytes"]) for row in await connection.fetch(_SIZES)]
    rows.append(("all", sum(taken for _, taken in rows)))
    lines = [[name, f"{taken / 2**20:,.1f}", f"{taken / passages:,.0f}"] for name, taken in rows]
    return table([["table or index", "MB", "bytes a passage"], *lines])


async def settings(connection: Connection) -> str:
    """Format PostgreSQL's settings that concern memory."""
    values = [await connection.fetchval("SELECT current_setting($1)", name) for name in SETTINGS]
    return table([["setting", "value"], *map(list, zip(SETTINGS, values, strict=True))])


async def memory(database: Database, url: str) -> str:
    """Format the memory of the server at a URL and of the connections to a database."""
    async with database.connection(ALL_ROOTS) as connection:
        backends = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        )
    server = _server_process(url)
    own = [_status(row["pid"], "RssAnon") for row in backends]
    lines = [
        ["server, now", f"{_status(server, 'VmRSS'):,.0f}"],
        ["server, at most", f"{_status(server, 'VmHWM'):,.0f}"],
        [f"{len(own)} connections, without shared buffers", f"{sum(own):,.0f}"],
    ]
    return table([["memory", "MB"], *lines])


def _server_process(url: str) -> int:
    wanted = f"--port\0{urlsplit(url).port}\0".encode()
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            if wanted in arguments.read_bytes():
                return int(arguments.parent.name)
    raise ProcessLookupError(f"no process serves {url}")


def _status(process: int, field: str) -> float:
    """Return megabytes from the kernel's status of a process."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
