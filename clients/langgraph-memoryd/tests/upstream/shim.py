"""A pytest plugin that puts memoryd in the place of the stores that LangGraph's tests open.

The file named by MEMORYD_OF_TESTS says where the server is, which keys there are, each confined to
a root of its own, and where its database is, which some tests look into with SQL.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import langgraph.store.memory
import langgraph.store.postgres
import psycopg
from embeddings import settle
from langgraph_memoryd import MemorydStore
from psycopg.rows import dict_row

PLACE = json.loads(Path(os.environ["MEMORYD_OF_TESTS"]).read_text())

_connect = psycopg.Connection.connect
_connect_async = psycopg.AsyncConnection.connect
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_unused = iter(PLACE["keys"][_worker::_workers])
_of_databases: dict[str, dict[str, str]] = {}


def _key_of(database: str) -> dict[str, str]:
    """Return the key to what stands for a database: what is below the key's root."""
    if database not in _of_databases:
        _of_databases[database] = next(_unused)
    return _of_databases[database]


class _Store(MemorydStore):
    """What tests use of LangGraph's stores beside their methods."""

    MIGRATIONS: tuple[str, ...] = ()

    def __init__(self, key: dict[str, str], index: Any, ttl: Any) -> None:
        fields = (index or {}).get("fields")
        options: dict[str, Any] = {"mode": "vector", "ttl": ttl, "index_fields": fields}
        super().__init__(PLACE["url"], api_key=key["token"], **options)
        self.index_config = index
        self._sql = {"conninfo": PLACE["database"], "autocommit": True, "row_factory": dict_row}
        self._confine = f"SET langgraph.root = '{key['root']}'"


class BlockingStore(_Store):
    """For PostgresStore."""

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, database: str, *, index: Any = None, ttl: Any = None, **_: Any
    ) -> Iterator["BlockingStore"]:
        with cls(_key_of(database), index, ttl) as store:
            yield store

    def setup(self) -> None: ...

    def start_ttl_sweeper(self) -> None: ...

    def stop_ttl_sweeper(self) -> None: ...

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with _connect(**self._sql) as connection, connection.cursor() as cursor:
            cursor.execute(self._confine)
            yield cursor


class AsyncStore(_Store):
    """For AsyncPostgresStore."""

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, database: str, *, index: Any = None, ttl: Any = None, **_: Any
    ) -> AsyncIterator["AsyncStore"]:
        async with cls(_key_of(database), index, ttl) as store:
            yield store

    async def setup(self) -> None: ...

    async def start_ttl_sweeper(self) -> None: ...

    async def stop_ttl_sweeper(self) -> None: ...

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Any]:
        async with await _connect_async(**self._sql) as connection:
            async with connection.cursor() as cursor:
                await cursor.execute(self._confine)
                yield cursor


class MemoryStore(_Store):
    """For InMemoryStore."""

    def __init__(self, *, index: Any = None) -> None:
        super().__init__(next(_unused), index, None)


class _Nothing:
    """A connection to the PostgreSQL server that is not there."""

    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None: ...

    def execute(self, *_: object) -> None: ...


class _NothingAsync:
    async def __aenter__(self) -> "_NothingAsync":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def execute(self, *_: object) -> None: ...


async def _connect_to_nothing(*_: Any, **__: Any) -> _NothingAsync:
    return _NothingAsync()


def pytest_configure() -> None:
    psycopg.Connection.connect = lambda *_, **__: _Nothing()
    psycopg.AsyncConnection.connect = _connect_to_nothing
    langgraph.store.postgres.PostgresStore = BlockingStore
    langgraph.store.postgres.AsyncPostgresStore = AsyncStore
    langgraph.store.memory.InMemoryStore = MemoryStore


def pytest_collection_finish() -> None:
    from tests.embed_test_utils import CharacterEmbeddings  # noqa: PLC0415  # LangGraph's tests

    create = CharacterEmbeddings.__init__

    def create_settled(self: Any, *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **options)
        settle(self)

    CharacterEmbeddings.__init__ = create_settled
