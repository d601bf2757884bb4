"""Tools by their routes."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database
from tests.tools.calling import Agent
from tests.tools.filing import Memory


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture
def agent(client: httpx2.AsyncClient) -> Agent:
    return Agent(client)


@pytest.fixture
def memory(agent: Agent) -> Memory:
    return Memory(agent)
