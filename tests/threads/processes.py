"""A real server and real workers beside a scripted model."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.llm_server import LLMServer
from tests.support.server import MEMORYD, clean_environment


def environment_of(database_url: str, llm: LLMServer) -> dict[str, str]:
    """Return the settings of every process; leases and pauses are short."""
    return {
        "MEMORYD_DATABASE_URL": database_url,
        "MEMORYD_EMBEDDING": "fake:hashed",
        "MEMORYD_LLM": "anthropic:scripted",
        "ANTHROPIC_API_KEY": "test",
        "ANTHROPIC_BASE_URL": llm.base_url_anthropic,
        "MEMORYD_JOB_LEASE_SECONDS": "1",
        "MEMORYD_JOB_BACKOFF_SECONDS": "0.05",
        "MEMORYD_JOB_ATTEMPTS": "50",
    }


class Worker:
    """A `memoryd worker` process that can be killed and started again."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process = self._started()

    def kill_and_start_again(self) -> None:
        """End the process as a crash would, whatever it is doing, and start another."""
        self.end(signal.SIGKILL)
        self._process = self._started()

    def end(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)
        self._process.wait(30)

    def _started(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [MEMORYD, "worker"],
                env={**clean_environment(), **self._environment},
                cwd=self._log.parent,  # away from a developer's .env
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextmanager
def worker_process(environment: Mapping[str, str], log: Path) -> Iterator[Worker]:
    """Yield a running worker, and stop it afterwards."""
    worker = Worker(environment, log)
    try:
        yield worker
    finally:
        worker.end(signal.SIGTERM)
