"""MCP clients of the application in this process."""

from collections.abc import AsyncIterator

import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """The protocol of today, which has no handshake, or that of before, which has one."""
    return str(request.param)
