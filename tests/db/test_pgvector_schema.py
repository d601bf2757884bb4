"""pgvector may be in any schema, whether or not the search path has it."""

import asyncio
from collections.abc import Iterator

import pytest

from app.config import Settings
from app.db import migrations
from app.db.database import PgvectorMissingError
from app.indexing.formats import prepare
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.resources import open_resources
from app.store.reindex import reindex
from tests.support.app import Store, running
from tests.support.databases import Cluster

MOVE = (
    'CREATE SCHEMA "Our extensions"',
    'ALTER EXTENSION vector SET SCHEMA "Our extensions"',
    'GRANT USAGE ON SCHEMA "Our extensions" TO memoryd',
)
TABLES_ELSEWHERE = (
    "CREATE SCHEMA memoryd AUTHORIZATION memoryd",
    "REVOKE ALL ON SCHEMA public FROM memoryd, public",
)


@pytest.fixture(params=[(), TABLES_ELSEWHERE], ids=["tables in public", "tables elsewhere"])
def url(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    with cluster.database(migrated=False) as bare:
        cluster.execute(bare, *MOVE, *request.param)
        yield bare


@pytest.mark.slow
def test_everything_works(url: str) -> None:
    migrations.upgrade(url)
    migrations.check_models(url)
    settings = Settings(database_url=url, database_pool_size=2)
    asyncio.run(search_in_both_ways(settings))
    asyncio.run(reindex_with_another_model(settings))
    migrations.check_models(url)
    migrations.downgrade(url, "base")


async def search_in_both_ways(settings: Settings) -> None:
    for exact in (10_000, 0):
        chosen = settings.model_copy(update={"exact_search_passages": exact})
        async with running(create_app(chosen, embedder=FakeEmbedder())) as client:
            store = Store(client)
            await store.put(["users"], "food", {"text": "ramen"})
            await store.put(["users"], "drink", {"text": "green tea"})
            found = await store.search(["users"], query="ramen", mode="vector")
            assert [item["key"] for item in found] == ["food", "drink"]


async def reindex_with_another_model(settings: Settings) -> None:
    other = FakeEmbedder(dimensions=32)
    async with open_resources(settings, embedder=other, choose_index=prepare) as resources:
        await reindex(resources, lambda _: None, drop_others=True)


def test_a_database_without_pgvector_is_refused(cluster: Cluster) -> None:
    with cluster.database(migrated=False) as bare:
        cluster.execute(bare, "DROP EXTENSION vector")
        with pytest.raises(PgvectorMissingError, match="CREATE EXTENSION vector"):
            migrations.upgrade(bare)
