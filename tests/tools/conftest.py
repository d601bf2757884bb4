"""Tools by their routes."""

from collections.abc import Iterable

import httpx2
import pytest

from app.auth.access import Verb
from app.auth.service import KeyService
from tests.support.keys import grant, key_with
from tests.tools.agent import HOME, Agent, AgentWith
from tests.tools.memory_files import Memory


@pytest.fixture
def agent(client: httpx2.AsyncClient) -> Agent:
    return Agent(client)


@pytest.fixture
def memory(agent: Agent) -> Memory:
    return Memory(agent)


@pytest.fixture
def agent_with(client: httpx2.AsyncClient, keys: KeyService) -> AgentWith:
    """Create an agent with a key of some verbs below a namespace."""

    async def agent_with(
        verbs: Iterable[Verb], below: Iterable[str] = HOME, root: tuple[str, ...] = ()
    ) -> Agent:
        return Agent(client, await key_with(keys, grant(verbs, *below), root=root))

    return agent_with
