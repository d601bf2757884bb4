from collections.abc import AsyncIterator

import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db.database import Database
from app.providers.embeddings.fake import FakeEmbedder
from app.resources import open_resources
from tests.managers.extracting import Extracting


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings that allow the models that managers name here."""
    return Settings(
        database_url=database_url,
        database_pool_size=5,
        allowed_models=["anthropic:claude", "openai:gpt"],
    )


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, pool_size=2)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture
async def extracting(settings: Settings, embedder: FakeEmbedder) -> AsyncIterator[Extracting]:
    """An empty database, and extractions into it."""
    async with open_resources(settings, embedder=embedder) as opened:
        yield Extracting(opened)
