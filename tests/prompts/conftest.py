from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db.database import Database
from app.main import create_app
from app.prompts.service import PromptService
from app.providers.embeddings.fake import FakeEmbedder
from app.resources import open_resources
from tests.prompts.optimizing import Optimizing
from tests.support.app import running
from tests.support.jobs import quick
from tests.support.llm_server import LLMServer, llm_server


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


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    async with llm_server() as started:
        yield started


@pytest.fixture
async def optimizing(database_url: str, llm: LLMServer) -> AsyncIterator[Optimizing]:
    """Jobs that ask a scripted model."""
    settings = quick(
        Settings(database_url=database_url, database_pool_size=8, llm="anthropic:scripted"),
        anthropic_api_key=SecretStr("sk-test"),
        anthropic_base_url=llm.base_url_anthropic,
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=llm.base_url_openai,
        allowed_models=["openai:m", "openai:gpt", "openai:small", "openai:large", "openai:best"],
    )
    async with _optimizing(settings) as found:
        yield found


@pytest.fixture
async def keyless(database_url: str) -> AsyncIterator[Optimizing]:
    """Jobs where only Anthropic's models can be asked."""
    settings = Settings(database_url=database_url, database_pool_size=4, llm="anthropic:scripted")
    chosen = {
        "anthropic_api_key": SecretStr("sk-test"),
        "openai_api_key": None,
        "allowed_models": ["openai:m"],
    }
    async with _optimizing(settings.model_copy(update=chosen)) as found:
        yield found


@asynccontextmanager
async def _optimizing(settings: Settings) -> AsyncIterator[Optimizing]:
    async with (
        running(create_app(settings, embedder=FakeEmbedder())) as client,
        open_resources(settings, embedder=FakeEmbedder()) as resources,
    ):
        yield Optimizing(client, resources)
