"""Restarting of lifetimes by reads, which a full disk must not stop."""

from collections.abc import Iterable
from datetime import datetime

import asyncpg

from app.db.database import Connection, Database
from app.store import repository
from app.store.writes import Address


async def restart_lifetimes(
    database: Database, connection: Connection, addresses: Iterable[Address], now: datetime
) -> bool:
    """Restart the lifetime of items that have one; return False if the disk is full."""
    if database.disk.refuses_writes:
        return False
    try:
        await repository.refresh(connection, addresses, now)
    except asyncpg.DiskFullError:
        database.disk.report_full()
        return False
    return True
