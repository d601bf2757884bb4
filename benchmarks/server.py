"""The systems under test as processes: the database engine and the HTTP servers."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from app.embedded import EmbeddedPostgres
from benchmarks.vectors import DIMENSIONS, FAKE, NAMES, TABLE

START_SECONDS = 60
STOP_SECONDS = 20


class DidNotStartError(Exception):
    """A server under test ended, or did not answer its health check in time."""


class Engine:
    """memoryd's own embedded PostgreSQL, which gives every system a fresh database."""

    def __init__(self, embedded: EmbeddedPostgres) -> None:
        self._embedded = embedded

    def fresh_database(self, name: str) -> str:
        """Create an empty database; return its URL, for a role that owns it."""
        self._execute(f'CREATE DATABASE "{name}" OWNER memoryd')
        return _database(self._embedded.url, name)

    def drop_database(self, name: str) -> None:
        """Close a database's connections and delete it."""
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def settle(self, name: str) -> None:
        """Vacuum and analyze, so that no system is measured with a stale plan or a busy disk."""
        self._execute("VACUUM (ANALYZE)", name)
        self._execute("CHECKPOINT")

    def _execute(self, statement: str, database: str = "postgres") -> None:
        url = _database(self._embedded.superuser_url, database)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def engine() -> Iterator[Engine]:
    """Run a PostgreSQL server in a temporary folder."""
    with (
        tempfile.TemporaryDirectory(prefix="memoryd-bench-") as folder,
        EmbeddedPostgres(Path(folder)) as embedded,
    ):
        yield Engine(embedded)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def memoryd(
    database_url: str | None, embedding: str, more: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run `memoryd serve` with one server process and `more` settings; yield its base URL.

    Without a database URL it starts its own embedded database, as in a new installation.
    """
    with tempfile.TemporaryDirectory(prefix="memoryd-bench-") as folder:
        port = free_port()
        program = str(Path(sys.executable).with_name("memoryd"))
        command = [program, "serve", "--host", "127.0.0.1", "--port", str(port)]
        with _embedding(embedding) as environment:
            settings = {**environment, "MEMORYD_LOG_LEVEL": "warning", **(more or {})}
            if database_url is not None:
                settings["MEMORYD_DATABASE_URL"] = database_url
                subprocess.run([program, "migrate"], env=os.environ | settings, check=True)
            with _process([*command, "--data-dir", folder], settings, port, "/healthz"):
                yield f"http://127.0.0.1:{port}"


@contextmanager
def bare(database_url: str, embedding: str) -> Iterator[str]:
    """Run the bare handler; yield its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", str(port)]
    environment = {"BARE_DATABASE_URL": database_url, "BARE_EMBEDDING": embedding}
    with _process(command, environment, port, "/healthz"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _embedding(embedding: str) -> Iterator[dict[str, str]]:
    """Yield the environment that gives memoryd this embedding, with its server running."""
    if embedding == TABLE:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.embedding_table", str(port)]
        with _process(command, {}, port, "/"):
            yield {
                "MEMORYD_EMBEDDING": "openai:bench",
                "MEMORYD_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
                "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
                "OPENAI_API_KEY": "x",
            }
    else:
        dimensions = {"MEMORYD_EMBEDDING_DIMENSIONS": str(DIMENSIONS)} if embedding == FAKE else {}
        yield {"MEMORYD_EMBEDDING": NAMES[embedding], **dimensions}


@contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], port: int, health: str
) -> Iterator[None]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=os.environ | dict(environment), stdout=output, stderr=output
        )
        try:
            if not _answers(process, port, health):
                output.seek(0)
                said = output.read()[-3000:].decode(errors="replace")
                raise DidNotStartError(f"{' '.join(command)} did not start. It wrote:\n{said}")
            yield
        finally:
            _stop(process)


def _answers(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
