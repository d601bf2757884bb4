"""The server as the rest of memoryd sees it: shared by every process that opens it."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from app.embedded.disk import give_up_reserve
from app.embedded.errors import EmbeddedPostgresError, failure
from app.embedded.postmaster import ensure_running, shut_down
from app.embedded.processes import find_server
from app.embedded.sockets import PORT, leads_to


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
