"""Tools by their routes."""

import httpx2
import pytest

from tests.tools.agent import Agent
from tests.tools.memory_files import Memory


@pytest.fixture
def agent(client: httpx2.AsyncClient) -> Agent:
    return Agent(client)


@pytest.fixture
def memory(agent: Agent) -> Memory:
    return Memory(agent)
