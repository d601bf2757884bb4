import asyncio
import socket
from collections.abc import AsyncIterator

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from app.config import Settings
from app.db.database import Database
from app.providers.embedder import FakeEmbedder
from app.resources import Resources
from tests.support.app import running
from tests.support.jobs import Jobs, ScriptedHandler, app_with_jobs, quick


@pytest.fixture(autouse=True)
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice soon what comes without a notification: attempts that are due."""
    monkeypatch.setattr("app.jobs.worker.POLL_SECONDS", 0.05)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return quick(Settings(database_url=database_url, database_pool_size=8))


@pytest.fixture(scope="session")
def app(shared_database_url: str) -> FastAPI:
    """The application with a route that submits jobs of the kind `test`; it has no worker."""
    settings = quick(Settings(database_url=shared_database_url, database_pool_size=8))
    return app_with_jobs(settings, embedder=FakeEmbedder())


@pytest.fixture
async def client(app: FastAPI, database_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, whose database is empty."""
    assert database_url
    async with running(app) as started:
        yield started


@pytest.fixture
def jobs(client: httpx2.AsyncClient, resources: Resources) -> Jobs:
    return Jobs(client, resources)


@pytest.fixture
def handler(jobs: Jobs) -> ScriptedHandler:
    return jobs.handler


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database


@pytest.fixture
async def streaming(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application behind a real socket, which a stream of events needs."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=url, timeout=30) as opened:
            yield opened
        server.should_exit = True
        await serving
