"""A pytest plugin that replaces the stores that LangGraph's tests open with memoryd.

The file named by MEMORYD_OF_TESTS has the server's URL, keys that are each confined to a root of
their own, and the address of the database, which some tests read with SQL.
"""

import importlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import langgraph.store.memory
import langgraph.store.postgres
import psycopg
from embeddings import settle
from langgraph_memoryd import MemorydStore
from psycopg.rows import dict_row

PLACE = json.loads(Path(os.environ["MEMORYD_OF_TESTS"]).read_text())

_SAME = re.compile(r"pipe|pool|halfvec(?!_cosine1)|l2|inner_product")
"""Variants of connections to PostgreSQL and of its indexes, which do not concern memoryd.

`halfvec_cosine1` is the only store whose items never expire.
"""

_connect = psycopg.Connection.connect
_connect_async = psycopg.AsyncConnection.connect
_SQL: dict[str, Any] = {
    "conninfo": PLACE["database"],
    "autocommit": True,
    "row_factory": dict_row,
}


def _unused_key() -> dict[str, str]:
    """Return a key that no other test has, in this or another process."""
    with _connect(**_SQL) as connection:
        (row,) = connection.execute("SELECT nextval('unused_key') AS number")
    key: dict[str, str] = PLACE["keys"][row["number"]]
    return key


_key_of = cache(lambda _database: _unused_key())
"""The key of a database; the items below the key's root stand for it."""


class _Store(MemorydStore):
    """Attributes of LangGraph's stores that tests use, besides the methods."""

    MIGRATIONS: tuple[str, ...] = ()

    def __init__(self, key: dict[str, str], index: Any, ttl: Any) -> None:
        fields = index.get("fields") if index else []  # those without an index embed nothing
        options: dict[str, Any] = {"mode": "vector", "ttl": ttl, "index_fields": fields}
        super().__init__(PLACE["url"], api_key=key["token"], **options)
        self.index_config = index
        self._confine = f"SET langgraph.root = '{key['root']}'"


class BlockingStore(_Store):
    """Replaces PostgresStore."""

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
        with _connect(**_SQL) as connection, connection.cursor() as cursor:
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
        async with await _connect_async(**_SQL) as connection, connection.cursor() as cursor:
            await cursor.execute(self._confine)
            yield cursor


class MemoryStore(_Store):
    """For InMemoryStore."""

    def __init__(self, *, index: Any = None) -> None:
        super().__init__(_unused_key(), index, None)


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


REPLACEMENTS = [
    (psycopg.Connection, "connect", lambda *_, **__: _Nothing()),
    (psycopg.AsyncConnection, "connect", _connect_to_nothing),
    (langgraph.store.postgres, "PostgresStore", BlockingStore),
    (langgraph.store.postgres, "AsyncPostgresStore", AsyncStore),
    (langgraph.store.memory, "InMemoryStore", MemoryStore),
]


def pytest_configure() -> None:
    # A suite names a class of it in annotations; the tests that use it fail for want of `mocker`.
    sys.modules.setdefault("pytest_mock", cast(ModuleType, SimpleNamespace(MockerFixture=object)))
    for owner, name, replacement in REPLACEMENTS:
        setattr(owner, name, replacement)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    items[:] = [one for one in items if not _is_redundant(one)]


def _is_redundant(test: Any) -> bool:
    """Whether a test is the same to memoryd as one that is run; tests of scores differ."""
    variant = test.callspec.id if hasattr(test, "callspec") else ""
    return test.originalname != "test_scores" and _SAME.search(variant) is not None


def pytest_collection_finish() -> None:
    embeddings = importlib.import_module("tests.embed_test_utils").CharacterEmbeddings
    create = embeddings.__init__

    def create_settled(self: Any, *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **options)
        settle(self)

    embeddings.__init__ = create_settled
