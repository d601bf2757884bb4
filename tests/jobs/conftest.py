import asyncio
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest
import uvicorn

from app.config import Settings
from app.db.database import Database
from app.providers.embeddings.fake import FakeEmbedder
from app.resources import Resources
from tests.support.app import running
from tests.support.jobs import Acting, app_with_jobs, quick


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice soon what comes without news: attempts that are due."""
    monkeypatch.setattr("app.jobs.worker.POLL_SECONDS", 0.05)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return quick(Settings(database_url=database_url, database_pool_size=8))


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database


@pytest.fixture
def acting(database: Database) -> Acting:
    return Acting(database)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server with a route that submits jobs of the kind `test`; it has no worker."""
    async with running(app_with_jobs(settings, embedder=FakeEmbedder())) as started:
        yield started


@pytest.fixture
async def streaming(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of such a server behind a real socket, which a stream of events needs."""
    app = app_with_jobs(settings, embedder=FakeEmbedder())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=url, timeout=30) as opened:
            yield opened
        server.should_exit = True
        await serving
