import os
from collections.abc import AsyncIterator, Iterator

import pytest

# Their assertions say what differs.
pytest.register_assert_rewrite(
    *(f"tests.langmem.{name}" for name in ("parity", "optimizer_parity", "tool_parity"))
)

from tests.langmem.ours import Memoryd, serving  # noqa: E402
from tests.langmem.parity import Parity  # noqa: E402
from tests.support.databases import Cluster  # noqa: E402
from tests.support.llm_server import llm_server  # noqa: E402

os.environ["LANGSMITH_TRACING"] = "false"  # nothing is sent anywhere


@pytest.fixture(scope="module")
def database_of_module(cluster: Cluster) -> Iterator[str]:
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="module")
async def memoryd_of_module(database_of_module: str) -> AsyncIterator[Memoryd]:
    async with llm_server() as llm, serving(database_of_module, llm) as started:
        yield started


@pytest.fixture
def memoryd(memoryd_of_module: Memoryd) -> Memoryd:
    """A server whose model has nothing to say yet; a module's tests share its database."""
    memoryd_of_module.llm.script.clear()
    memoryd_of_module.llm.requests.clear()
    return memoryd_of_module


@pytest.fixture
def parity(memoryd: Memoryd) -> Parity:
    return Parity(memoryd)
