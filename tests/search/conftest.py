"""Servers that search in ways of their own."""

from collections.abc import AsyncIterator

import pytest

from app.clock import FrozenClock
from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import Store, running


@pytest.fixture
async def indexed(
    settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[Store]:
    """A store, on the database of `store`, that searches every scope by index, however small."""
    eager = settings.model_copy(update={"exact_search_passages": 0})
    async with running(create_app(eager, embedder=embedder, clock=clock)) as client:
        yield Store(client)
