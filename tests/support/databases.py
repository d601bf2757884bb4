"""Databases for tests: each a copy of one that was migrated once."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg

from app.db import migrations
from app.embedded import EmbeddedPostgres

TEMPLATE = "memoryd_template"

_DELETE_CONTENT = """
DELETE FROM items; DELETE FROM item_usage; DELETE FROM namespaces; DELETE FROM item_versions;
DELETE FROM api_keys; DELETE FROM jobs; DELETE FROM idempotent_requests; DELETE FROM managers;
DELETE FROM consolidation_marks; DELETE FROM threads; DELETE FROM prompts;
"""

_DELETE_PROCESSES = """
DELETE FROM workers; DELETE FROM passage_indexes;
DO $$ DECLARE index_name text; BEGIN
    FOR index_name IN SELECT indexname FROM pg_indexes WHERE indexname LIKE 'passages_embedding_%'
    LOOP EXECUTE 'DROP INDEX ' || index_name; END LOOP;
END $$
"""

_numbers = itertools.count(1)


class Cluster:
    """A PostgreSQL server that hands out migrated, empty databases."""

    def __init__(self, embedded: EmbeddedPostgres) -> None:
        self._embedded = embedded
        self._loop = asyncio.new_event_loop()
        self._emptying: dict[str, asyncpg.Connection] = {}

    def close(self) -> None:
        self._loop.close()

    def prepare(self) -> None:
        self._administer("ALTER SYSTEM SET fsync = off")  # a test never loses power
        self._administer("SELECT pg_reload_conf()")
        self._administer(f"CREATE DATABASE {TEMPLATE} OWNER memoryd")
        migrations.upgrade(self.url(TEMPLATE))

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """Yield the URL of a fresh database, and drop it afterwards."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        template = TEMPLATE if migrated else "template1"
        self._administer(f"CREATE DATABASE {name} TEMPLATE {template} OWNER memoryd")
        try:
            yield self.url(name)
        finally:
            self._loop.run_until_complete(self._stop_emptying(self.url(name)))
            self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, url: str, *statements: str) -> None:
        """Run statements as the superuser in the database of a URL."""
        for statement in statements:
            asyncio.run(self._execute(statement, database=urlsplit(url).path.lstrip("/")))

    def superuser_url_of(self, url: str) -> str:
        return self.superuser_url.replace("/postgres?", f"{urlsplit(url).path}?")

    def empty(self, url: str, *, served: bool = False) -> None:
        """Remove every row: a hundred times faster than a fresh database.

        What the processes that serve it have registered stays if it is `served`.
        """
        statements = _DELETE_CONTENT if served else _DELETE_CONTENT + _DELETE_PROCESSES
        try:
            self._loop.run_until_complete(self._empty(url, statements))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            # A test has ended the connection.
            self._loop.run_until_complete(self._stop_emptying(url))
            self._loop.run_until_complete(self._empty(url, statements))

    async def _empty(self, url: str, statements: str) -> None:
        if url not in self._emptying:  # connecting takes longer than deleting
            self._emptying[url] = await asyncpg.connect(self.superuser_url_of(url))
        await self._emptying[url].execute(statements)

    async def _stop_emptying(self, url: str) -> None:
        if connection := self._emptying.pop(url, None):
            connection.terminate()
            await asyncio.sleep(0)  # the loop closes the socket

    def url(self, database: str) -> str:
        return self._embedded.url.replace("/memoryd?", f"/{database}?")

    @property
    def superuser_url(self) -> str:
        return self._embedded.superuser_url

    def _administer(self, statement: str) -> None:
        asyncio.run(self._execute(statement))

    async def _execute(self, statement: str, *, database: str = "postgres") -> None:
        url = self._embedded.superuser_url.replace("/postgres?", f"/{database}?")
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
