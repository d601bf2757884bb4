"""Keeps the embedded PostgreSQL running while a process uses it."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from app.embedded.disk import give_up_reserve, is_full, keep_reserve
from app.embedded.errors import EmbeddedPostgresError
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
