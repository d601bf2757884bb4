import os
from collections.abc import AsyncIterator, Iterator

import pytest

# Their assertions say what differs.
pytest.register_assert_rewrite(
    *(f"tests.langmem.{name}" for name in ("both", "optimizers", "tools"))
)

from tests.langmem.both import Both  # noqa: E402
from tests.langmem.ours import Memoryd, serving  # noqa: E402
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


@pytest.fixture(scope="module")
def both_of_module(memoryd_of_module: Memoryd) -> Both:
    return Both(memoryd_of_module)


@pytest.fixture
def both(both_of_module: Both, memoryd: Memoryd) -> Both:
    return both_of_module
