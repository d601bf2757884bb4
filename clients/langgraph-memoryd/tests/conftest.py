"""Fixtures: the server's own (PostgreSQL, and memoryd on it), and those of the client's tests."""

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
    """A store for blocking and asynchronous calls."""
    store = MemorydStore(server.url)
    yield store
    await store.aclose()
