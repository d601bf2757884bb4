"""Threads by their routes."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db import Database
from app.main import create_app
from app.providers.embeddings.fake import FakeEmbedder
from app.threads.router import router
from tests.support.app import running
from tests.threads.talking import Threads


def app_with_threads(settings: Settings, **replaced: Any) -> FastAPI:
    app = create_app(settings, **replaced)
    if "/v1/runs" not in app.openapi()["paths"]:
        app.include_router(router, prefix="/v1")
    return app


@pytest.fixture
async def client(
    settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[httpx2.AsyncClient]:
    app = app_with_threads(settings, embedder=embedder, clock=clock)
    async with running(app) as started:
        yield started


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
