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

from app.disk import give_up_reserve, is_full, keep_reserve
from app.embedded.errors import EmbeddedPostgresError

MOST_FAILURES = 8
"""Ends in a row after which it is useless to start the server again."""

STEADY_SECONDS = 60.0
"""A server that ran for this long has recovered."""

_LOOK_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
"""Longest pause before the next start: space may be there again any time."""

_ENOUGH_BYTES = 24 << 20
"""What PostgreSQL needs to recover: a segment of its log, and some more."""

_SPACE_SECONDS = 30.0
"""Longest wait for space on a full disk before the server is started all the same."""

_logger = structlog.get_logger("memoryd.embedded")


class Server(Protocol):
    """A server that can be started again."""

    data_dir: Path

    @property
    def is_running(self) -> bool:
        """Whether its main process lives."""
        ...

    def start_again(self, stopping: threading.Event) -> None:
        """Start it unless it runs; raises EmbeddedPostgresError."""
        ...


def end_this_process() -> None:
    """Ask this process to end in an orderly way."""
    os.kill(os.getpid(), signal.SIGTERM)


class PostgresKeeper:
    """A task for a supervisor: starts the server if it does not run, and waits for its end.

    `failure` is set once that has failed too often, and the process has been asked to end.
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
        """Give up the reserve; if even that does not free enough, wait a while for more."""
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
