from collections.abc import AsyncIterator

import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db import Database
from app.prompts.service import PromptService


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Connections to the empty database of a test."""
    opened = await Database.open(str(settings.database_url), pool_size=5)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture
def prompts(database: Database, clock: FrozenClock) -> PromptService:
    return PromptService(database, clock)
