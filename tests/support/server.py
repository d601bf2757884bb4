"""Real `memoryd` processes: servers, workers, and commands that run to their end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

MEMORYD = Path(sys.executable).parent / "memoryd"
"""The command of this environment."""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below the ports that the system hands out, and other ones in each of pytest's processes: a port
# that two servers were given would be answered by one of them for both.
_ports = count(20_000 + 1_000 * _WORKER)


def free_port() -> int:
    while True:
        port = next(_ports)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Server:
    """A started server: its address, and its process to stop or kill."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        command: Path = MEMORYD,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [command, "serve", "--port", str(self.port), *arguments],
                env={**clean_environment(), **environment},
                cwd=log.parent,  # away from a developer's .env
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_it_answers(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urlopen(f"{self.url}/healthz", timeout=5):  # noqa: S310
                    return
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        raise AssertionError(f"no answer within {seconds} s:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def kill(self) -> None:
        """End every process of the server at once, as a crash would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def serving(
    log: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    worker: bool = False,
) -> Iterator[Server]:
    """Yield a running server, with a worker if asked for; stop them afterward if they still run."""
    server = Server(list(arguments), environment or {}, log)
    try:
        server.wait_until_it_answers()
        with working(log, environment or {}) if worker else nullcontext():
            yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@contextmanager
def working(
    log: Path, environment: Mapping[str, str], *arguments: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a `memoryd worker` process, and stop it afterward."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [MEMORYD, "worker", *arguments],
            env={**clean_environment(), **environment},
            cwd=log.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def memoryd(
    *arguments: str, environment: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command; it finds a .env file and a data directory in `cwd`."""
    return subprocess.run(
        [MEMORYD, *arguments],
        env={**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds that nothing would report."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings that would change the server."""
    settings = ("MEMORYD_", "OPENAI_", "ANTHROPIC_", "LANGGRAPH_", "LANGSMITH_", "LANGCHAIN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}
