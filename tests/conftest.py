"""Fixtures that every test may ask for."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import hypothesis
import pytest

from app.clock import FrozenClock
from app.config import Settings
from app.embedded import EmbeddedPostgres
from app.main import create_app
from app.providers.embeddings.fake import FakeEmbedder
from tests.support.app import Store, running
from tests.support.databases import Cluster
from tests.support.server import Server, serving

# Other processes share the cores: how long an example takes says nothing about the test.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of this test process."""
    with (
        tempfile.TemporaryDirectory(prefix="memoryd-test-") as directory,
        EmbeddedPostgres(Path(directory)) as embedded,
    ):
        prepared = Cluster(embedded)
        prepared.prepare()
        yield prepared


@pytest.fixture(scope="session")
def shared_database_url(cluster: Cluster) -> Iterator[str]:
    """The database that `database_url` empties for each test."""
    with cluster.database() as url:
        yield url


@pytest.fixture
def database_url(cluster: Cluster, shared_database_url: str) -> str:
    """An empty, migrated database."""
    cluster.empty(shared_database_url)
    return shared_database_url


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, database_pool_size=5)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def client(
    settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, in this process, on an empty database."""
    async with running(create_app(settings, embedder=embedder, clock=clock)) as started:
        yield started


@pytest.fixture
def store(client: httpx2.AsyncClient) -> Store:
    return Store(client)


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server process on an empty database, shared by a module's tests."""
    log = tmp_path_factory.mktemp("server") / "log"
    with cluster.database() as url, serving(log, environment=_serving(url)) as started:
        yield started


@pytest.fixture(scope="module")
def working_server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Such a server that does jobs, too."""
    log = tmp_path_factory.mktemp("working-server") / "log"
    with (
        cluster.database() as url,
        serving(log, environment=_serving(url), worker=True) as started,
    ):
        yield started


def _serving(url: str) -> dict[str, str]:
    return {"MEMORYD_DATABASE_URL": url, "MEMORYD_EMBEDDING": "fake:hashed"}
