"""Supervision: runs a task in a thread, and restarts it with backoff whenever it ends."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import structlog

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A task that ran for this long is restarted after the first pause again."""

POLL_SECONDS = 0.1

_logger = structlog.get_logger("memoryd.supervisor")


class Task(Protocol):
    """Something that should run as long as its supervisor."""

    @property
    def name(self) -> str:
        """The task's name in log lines."""

    def run(self, stopping: threading.Event) -> str:
        """Run until the task ends or `stopping` is set; return how it ended."""


class Supervisor:
    """Keeps a task running until the end of a `with` block, in a thread that mostly waits."""

    def __init__(
        self,
        task: Task,
        *,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._task = task
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, name=f"{task.name} supervisor", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        pause = self._first_pause
        while True:
            began = time.monotonic()
            reason = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                pause = self._first_pause
            _logger.error("task ended", task=self._task.name, how=reason, starts_again_in=pause)
            if self._stopping.wait(pause):
                return
            pause = min(pause * 2, self._longest_pause)

    def _run_once(self) -> str:
        try:
            return self._task.run(self._stopping)
        except Exception as error:  # noqa: BLE001  # logged by the caller, and tried again
            return str(error) or repr(error)


class ChildProcess:
    """A task that runs a child process, whose standard input ends when this process does.

    A child that watches its standard input never outlives its parent, however the parent ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        stop_seconds: float,
    ) -> None:
        self.name = name
        self._command = command
        self._environment = {**os.environ, **environment}
        self._stop_seconds = stop_seconds

    def run(self, stopping: threading.Event) -> str:
        """Run the process until it ends, or stop it when `stopping` is set."""
        # Standard output may carry a protocol (MCP), so the child writes to standard error only.
        process = subprocess.Popen(  # noqa: S603
            self._command, env=self._environment, stdin=subprocess.PIPE, stdout=2
        )
        with process:
            try:
                while process.poll() is None and not stopping.wait(POLL_SECONDS):
                    pass
                return ending_of(process.returncode) if process.returncode is not None else ""
            finally:
                self._stop(process)

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is not None:
            return
        if process.stdin:
            process.stdin.close()
        process.terminate()  # for a child that does not watch its standard input
        try:
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            _logger.warning("task killed", task=self.name, after_seconds=self._stop_seconds)
            process.kill()


def ending_of(returncode: int) -> str:
    """Describe how a process ended."""
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
