"""The server as memoryd sees it: shared by every process that opens it, and supervised."""

import errno
import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, Self

import structlog

from app.embedded.disk import give_up_reserve, is_full, keep_reserve
from app.embedded.postmaster import PORT, ensure_running, find_server, leads_to, shut_down
from app.embedded.programs import EmbeddedPostgresError, failure
from app.supervisor import STEADY_SECONDS

MOST_FAILURES = 8
"""Failures in a row after which the server is not started again."""

_LOOK_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
"""Longest pause before the next start; on a full disk, space may be freed at any time."""

_ENOUGH_BYTES = 24 << 20
"""Space that PostgreSQL needs to recover: a segment of its log, and some more."""

_SPACE_SECONDS = 30.0
"""Longest wait for space on a full disk before the server is started anyway."""

_logger = structlog.get_logger("memoryd.embedded")


class EmbeddedPostgres:
    """A PostgreSQL of our own in `data_dir`/postgres, shared by every process that opens it.

    Every opener holds a shared lock on `postgres.lock` for as long as it uses the server, and
    takes `postgres.gate` alone while it starts or stops. The kernel drops the locks of a killed
    process, so who can turn the shared lock into an exclusive one is the last user.
    The methods block: call them before the event loop starts, or through `asyncio.to_thread`.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._cluster = self.data_dir / "postgres"
        self._share: int | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the service connects: database `memoryd` as its owner, not a superuser."""
        return self._url("memoryd", "memoryd")

    @property
    def superuser_url(self) -> str:
        """For maintenance: database `postgres` as the superuser."""
        return self._url("postgres", "postgres")

    def start(self) -> str:
        """Create the cluster if there is none, start or join its server, return the URL."""
        if self._share is not None:
            return self.url
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            give_up_reserve(self.data_dir)
            with self._gate() as gate:
                self._socket_dir = ensure_running(self._cluster, gate)
                self._share = self._open_lock("postgres.lock", fcntl.LOCK_SH)
        except OSError as error:
            raise self._explain(error) from error
        return self.url

    @property
    def is_running(self) -> bool:
        """True if the server's main process is alive."""
        return find_server(self._cluster) is not None

    def start_again(self, stopping: threading.Event) -> None:
        """Start the server unless it is running; of several processes, the first one does it.

        Raises EmbeddedPostgresError, also if `stopping` is set before the server answers.
        """
        if self.is_running:
            return
        try:
            with self._gate() as gate:
                ensure_running(self._cluster, gate, stopping)
        except OSError as error:
            raise self._explain(error) from error

    def stop(self) -> None:
        """Give up this process's share; the last one out stops the server."""
        if self._share is None:
            return
        share, self._share = self._share, None
        try:
            with self._gate(), suppress(BlockingIOError):  # raised while others use the server
                fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shut_down(self._cluster)
        finally:
            os.close(share)

    @classmethod
    def owns(cls, url: str, data_dir: Path) -> bool:
        """Return whether a URL leads to the server in `data_dir`, whichever process started it."""
        return leads_to(url, data_dir.resolve() / "postgres")

    def _url(self, role: str, database: str) -> str:
        if self._socket_dir is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL has no URL yet: call start().")
        return f"postgresql://{role}@/{database}?host={self._socket_dir}&port={PORT}"

    @contextmanager
    def _gate(self) -> Iterator[int]:
        """Hold the lock under which servers are started and stopped."""
        gate = self._open_lock("postgres.gate", fcntl.LOCK_EX)
        try:
            yield gate
        finally:
            os.close(gate)

    def _open_lock(self, name: str, how: int) -> int:
        lock = os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _explain(self, error: OSError) -> EmbeddedPostgresError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return failure(str(error), self._cluster)
        if isinstance(error, FileExistsError | NotADirectoryError):
            return EmbeddedPostgresError(
                f"Cannot use {self.data_dir}: it is not a directory, or is inside of a file. "
                "Set MEMORYD_DATA_DIR to a directory."
            )
        return EmbeddedPostgresError(
            f"Cannot use {self.data_dir} as user id {os.geteuid()}: {error}. Give that user the "
            f"directory, or set MEMORYD_DATA_DIR to one it can write to."
        )


class Server(Protocol):
    """A server that can be restarted."""

    data_dir: Path

    @property
    def is_running(self) -> bool:
        """True if its main process is alive."""
        ...

    def start_again(self, stopping: threading.Event) -> None:
        """Start it unless it is running; raises EmbeddedPostgresError."""
        ...


def end_this_process() -> None:
    """Ask this process to shut down."""
    os.kill(os.getpid(), signal.SIGTERM)


class PostgresKeeper:
    """A supervised task that starts the server if it is not running, and waits for its end.

    After too many failures in a row it sets `failure` and asks the process to shut down.
    """

    name = "postgresql"

    def __init__(self, server: Server, give_up: Callable[[], None] = end_this_process) -> None:
        self._server = server
        self._give_up = give_up
        self._failures = 0
        self.failure: EmbeddedPostgresError | None = None

    def run(self, stopping: threading.Event) -> str:
        """Run until the server ends or `stopping` is set; return how it ended."""
        began = time.monotonic()
        ending = self._keep(stopping)
        if stopping.is_set() or is_full(self._server.data_dir):
            return ending
        self._failures = 1 if time.monotonic() - began > STEADY_SECONDS else self._failures + 1
        if self._failures >= MOST_FAILURES and self.failure is None:
            self.failure = EmbeddedPostgresError(
                f"PostgreSQL ended {self._failures} times in a row, and is not started again. "
                f"The last reason: {ending}"
            )
            _logger.critical(str(self.failure))
            self._give_up()
        return ending

    def _keep(self, stopping: threading.Event) -> str:
        try:
            self._wait_for_space(stopping)
            self._server.start_again(stopping)
        except EmbeddedPostgresError as error:
            return str(error)
        while not stopping.wait(_LOOK_SECONDS):
            keep_reserve(self._server.data_dir)
            if not self._server.is_running:
                return f"its process is gone; {self._server.data_dir}/postgres/log may say why"
        return ""

    def _wait_for_space(self, stopping: threading.Event) -> None:
        """Release the reserve; if that does not free enough, wait a while for more space."""
        directory = self._server.data_dir
        if self._server.is_running or not is_full(directory):
            return
        give_up_reserve(directory)
        _logger.error(
            "the disk of the database is full and PostgreSQL has ended; free some space",
            directory=str(directory),
        )
        began = time.monotonic()
        while shutil.disk_usage(directory).free < _ENOUGH_BYTES:
            if stopping.wait(_LOOK_SECONDS) or time.monotonic() - began > _SPACE_SECONDS:
                return
