"""Fixtures of the server's own tests (PostgreSQL, and memoryd on it), and of these."""

import uuid
from collections.abc import AsyncIterator

import pytest
from langgraph_memoryd import MemorydStore

from tests.support.fixtures import cluster, server
from tests.support.server import Server

__all__ = ["cluster", "server"]


@pytest.fixture
def root() -> str:
    """A first label that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def store(server: Server) -> AsyncIterator[MemorydStore]:
    """A store that blocking and asynchronous calls share."""
    store = MemorydStore(server.url)
    yield store
    await store.aclose()
