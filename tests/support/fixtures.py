"""Fixtures that every test may ask for."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.db.database import Database
from app.embedded import EmbeddedPostgres
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import Resources, open_resources
from tests.support.app import Store, running
from tests.support.data_directories import data_directory
from tests.support.databases import Cluster
from tests.support.extraction import Memories
from tests.support.llm_server import LLMServer, llm_server
from tests.support.server import Server, serving
from tests.support.threads import Threads


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
        prepared.close()


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
def data_dir() -> Iterator[Path]:
    """The place of an embedded database that the test makes."""
    with data_directory() as path:
        yield path


@pytest.fixture
def bare_url(cluster: Cluster) -> Iterator[str]:
    """A database without any table."""
    with cluster.database(migrated=False) as url:
        yield url


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(
        database_url=database_url,
        database_pool_size=5,
        allowed_models=["anthropic:claude", "openai:gpt"],
        allow_superuser=True,  # checking the role takes a connection more, for every test
    )


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2026, 1, 1, 12, tzinfo=UTC))


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Connections of the test itself to its database."""
    opened = await Database.open(database_url, pool_size=5)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: FrozenClock) -> KeyService:
    return KeyService(database, clock)


@pytest.fixture
async def resources(settings: Settings, embedder: FakeEmbedder) -> AsyncIterator[Resources]:
    """The resources of a worker's process."""
    async with open_resources(settings, embedder=embedder) as opened:
        yield opened


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    """A scripted model server."""
    async with llm_server() as started:
        yield started


@pytest.fixture
async def memories(resources: Resources) -> Memories:
    """An empty database, and jobs that extract memories into it."""
    return Memories(resources)


@pytest.fixture
async def client(
    settings: Settings, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application, in this process, on an empty database."""
    async with running(create_app(settings, embedder=embedder, clock=clock)) as started:
        yield started


@pytest.fixture(scope="module")
async def shared_client(filled_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application on `filled_url`, which the tests of a module share."""
    chosen = Settings(database_url=filled_url, database_pool_size=5)
    async with running(create_app(chosen, embedder=FakeEmbedder())) as started:
        yield started


@pytest.fixture
def store(client: httpx2.AsyncClient) -> Store:
    return Store(client)


@pytest.fixture
def threads(client: httpx2.AsyncClient) -> Threads:
    return Threads(client)


@pytest.fixture(scope="module")
def filled_url(cluster: Cluster) -> Iterator[str]:
    """A database that the tests of a module fill once."""
    with cluster.database() as url:
        yield url


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
