"""Threads by their routes."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database
from tests.threads.talking import Threads


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture
def threads(client: httpx2.AsyncClient) -> Threads:
    return Threads(client)
