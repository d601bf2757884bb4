import os
from collections.abc import AsyncIterator, Iterator

import pytest

pytest.register_assert_rewrite("tests.langmem.parity")  # its assertions say what differs

from tests.langmem.ours import Memoryd, serving  # noqa: E402
from tests.langmem.parity import Parity  # noqa: E402
from tests.support.databases import Cluster  # noqa: E402
from tests.support.llm_server import llm_server  # noqa: E402

os.environ["LANGSMITH_TRACING"] = "false"  # nothing is sent anywhere


@pytest.fixture(scope="package")
def database_of_package(cluster: Cluster) -> Iterator[str]:
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="package")
async def memoryd_of_package(database_of_package: str) -> AsyncIterator[Memoryd]:
    async with llm_server() as llm, serving(database_of_package, llm) as started:
        yield started


@pytest.fixture
def memoryd(memoryd_of_package: Memoryd) -> Memoryd:
    """A server whose model has nothing to say yet; all tests here share its database."""
    memoryd_of_package.llm.script.clear()
    memoryd_of_package.llm.requests.clear()
    return memoryd_of_package


@pytest.fixture
def parity(memoryd: Memoryd) -> Parity:
    return Parity(memoryd)
