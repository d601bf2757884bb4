from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from app.clock import FrozenClock
from app.config import Settings
from app.db.database import Database
from app.main import create_app
from app.prompts.service import PromptService
from app.providers.embedder import FakeEmbedder
from app.resources import open_resources
from tests.prompts.optimize_jobs import OptimizeJobs
from tests.support.app import running
from tests.support.jobs import quick
from tests.support.llm_server import LLMServer


@pytest.fixture
def prompts(database: Database, clock: FrozenClock) -> PromptService:
    return PromptService(database, clock)


@pytest.fixture
async def optimizing(database_url: str, llm: LLMServer) -> AsyncIterator[OptimizeJobs]:
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
async def keyless(database_url: str) -> AsyncIterator[OptimizeJobs]:
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
async def _optimizing(settings: Settings) -> AsyncIterator[OptimizeJobs]:
    async with (
        running(create_app(settings, embedder=FakeEmbedder())) as client,
        open_resources(settings, embedder=FakeEmbedder()) as resources,
    ):
        yield OptimizeJobs(client, resources)
