"""A real server and real `memoryd worker` processes on one database."""

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.databases import Cluster
from tests.support.server import MEMORYD, Server, clean_environment, serving

FAST = {
    "MEMORYD_EMBEDDING": "fake:hashed",
    "MEMORYD_JOB_LEASE_SECONDS": "1.5",
    "MEMORYD_JOB_BACKOFF_SECONDS": "0.05",
    "MEMORYD_DRAIN_SECONDS": "5",
}


class Worker:
    """A `memoryd worker` process."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [MEMORYD, "worker", "--concurrency", "4"],
                env={**clean_environment(), **environment},
                cwd=log.parent,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end; return its exit status."""
        self.process.terminate()
        return self.process.wait(30)


class Deployment:
    """A server and any number of workers."""

    def __init__(self, server: Server, environment: dict[str, str], log: Path) -> None:
        self.server = server
        self.workers: list[Worker] = []
        self._environment = environment
        self._log = log

    def start_worker(self) -> Worker:
        worker = Worker(self._environment, self._log)
        self.workers.append(worker)
        return worker

    async def ask(self, question: str, *values: Any) -> Any:
        async with self._connected() as connection:
            return await connection.fetch(question, *values)

    @asynccontextmanager
    async def items_locked(self) -> AsyncIterator[None]:
        """Let everybody who writes items wait until the end of the block."""
        async with self._connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE items IN EXCLUSIVE MODE")
            yield

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._environment["MEMORYD_DATABASE_URL"])
        try:
            await connection.execute("SELECT set_config('memoryd.root', '', false)")
            yield connection
        finally:
            await connection.close()


@contextmanager
def deployed(cluster: Cluster, directory: Path, **more: str) -> Iterator[Deployment]:
    """Start a server on an empty database; it and the workers end with the block."""
    log = directory / "log"
    with cluster.database() as url:
        environment = {"MEMORYD_DATABASE_URL": url, **FAST, **more}
        with serving(log, environment=environment) as server:
            deployment = Deployment(server, environment, log)
            try:
                yield deployment
            finally:
                for worker in deployment.workers:
                    worker.kill()
