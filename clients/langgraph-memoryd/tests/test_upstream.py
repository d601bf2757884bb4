"""LangGraph's own tests of its stores, on memoryd: README.md says which do not pass, and why."""

import asyncio
import fcntl
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import asyncpg
import pytest

from app.auth.access import ALL_GRANTED
from app.cli.startup import open_keys
from app.config import Settings
from tests.support.databases import Cluster
from tests.support.server import clean_environment, serving

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "upstream"
CLIENT = HERE.parents[1]


@dataclass(frozen=True)
class Suite:
    """Published tests, and how many stores they open at most."""

    name: str
    files: tuple[str, ...]
    stores: int
    processes: int = 0

    @property
    def directory(self) -> str:
        return self.name.replace("-", "_").replace(" ", "-")


SUITES = [
    Suite(
        "langgraph-checkpoint-postgres 3.2.0",
        ("tests/test_store.py", "tests/test_async_store.py"),
        stores=120,
        processes=3,  # more than there are cores: two of its tests mostly sleep
    ),
    Suite("langgraph-checkpoint 4.3.2", ("tests/test_store.py",), stores=100),
]

AS_LANGGRAPHS_TABLE = r"""
CREATE SEQUENCE unused_key MINVALUE 0;
CREATE VIEW store AS
SELECT replace(substr(rtrim(namespace, E'\x1f'), strpos(namespace, E'\x1f') + 1), E'\x1f', '.')
    AS prefix, key, expires_at, updated_at
FROM items
WHERE split_part(namespace, E'\x1f', 1) = current_setting('langgraph.root')
"""


@pytest.fixture(scope="module")
def sources() -> Path:
    """The published sources' tests, downloaded unless they are there already."""
    kept = CLIENT / "build" / "upstream"
    kept.mkdir(parents=True, exist_ok=True)
    lock = HERE / "sources.lock"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # test processes run at the same time
        if not (kept / "lock").exists() or (kept / "lock").read_text() != lock.read_text():
            _download(lock, kept)
            (kept / "lock").write_text(lock.read_text())
    return kept


def _download(lock: Path, directory: Path) -> None:
    command = "-m pip download --no-deps --no-binary :all: --require-hashes --quiet"
    files = ["--requirement", str(lock), "--dest", str(directory)]
    subprocess.run([sys.executable, *command.split(), *files], check=True, stdout=sys.stderr)
    for archive in directory.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            members = [one for one in opened if "/tests/" in one.name]
            opened.extractall(directory, members, filter="data")


@contextmanager
def memoryd(cluster: Cluster, suite: Suite, tests: Path, directory: Path) -> Iterator[Path]:
    """Yield the file that tells the tests where memoryd is."""
    embeddings: list[str | Path] = [sys.executable, HERE / "embeddings.py", tests]
    with (
        cluster.database() as url,
        subprocess.Popen(embeddings, stdout=subprocess.PIPE, text=True) as embedder,
    ):
        assert embedder.stdout
        environment = {
            "MEMORYD_DATABASE_URL": url,
            "MEMORYD_EMBEDDING": "openai:characters",
            "MEMORYD_LOG_LEVEL": "warning",
            "MEMORYD_SWEEP_INTERVAL_SECONDS": "3600",  # some tests look at expired rows
            "OPENAI_BASE_URL": f"http://127.0.0.1:{embedder.stdout.readline().strip()}/v1",
        }
        database = cluster.superuser_url.replace("/postgres?", f"{urlsplit(url).path}?")
        keys = asyncio.run(_prepare(url, database, suite.stores))
        with serving(directory / "log", environment=environment) as server:
            place = directory / "place.json"
            place.write_text(json.dumps({"url": server.url, "database": database, "keys": keys}))
            yield place
        embedder.terminate()


async def _prepare(url: str, superuser_url: str, stores: int) -> list[dict[str, str]]:
    connection = await asyncpg.connect(superuser_url)
    await connection.execute(AS_LANGGRAPHS_TABLE)
    await connection.close()
    async with open_keys(Settings(database_url=url)) as service:
        roots = [f"root-{number}" for number in range(stores)]
        tokens = [
            await service.create(root, root=[root], grants=ALL_GRANTED, expires_at=None)
            for root in roots
        ]
    return [{"root": r, "token": str(token)} for r, token in zip(roots, tokens, strict=True)]


def outcomes(suite: Suite, tests: Path, place: Path) -> dict[str, list[bool]]:
    """Run LangGraph's tests; return by their names whether those of the name pass."""
    report = place.with_name("report.xml")
    environment = {
        **clean_environment(),
        "MEMORYD_OF_TESTS": str(place),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(HERE),
    }
    plugins = "-p pytest_asyncio.plugin -p pytest_mock -p xdist -p shim"
    options = f"{plugins} -o asyncio_mode=auto --dist worksteal"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *suite.files, *options.split()),
            *("-n", str(suite.processes), f"--junit-xml={report}", f"--rootdir={tests}"),
            *("-c", os.devnull),
        ],
        cwd=tests,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode in {0, 1}, done.stdout
    found: dict[str, list[bool]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it
        found.setdefault(case.attrib["name"], []).append(not len(case))
    return found


def claims(suite: Suite) -> tuple[int, int, dict[str, int]]:
    """Return README.md's claims: passing tests, all tests, and failing ones by name."""
    readme = (CLIENT / "README.md").read_text()
    section = readme.partition(f"### {suite.name}: ")[2].partition("\n#")[0]
    passing, total = map(int, re.findall(r"\d+", section)[:2])
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \|", section, re.MULTILINE)
    return passing, total, {name: int(number) for name, number in rows}


def grouped(names: dict[str, int], patterns: dict[str, int]) -> dict[str, int]:
    """Return how many there are of each pattern, and of each name that fits none."""
    counts: dict[str, int] = {}
    for name, number in names.items():
        fitting = (p for p in patterns if re.fullmatch(re.escape(p).replace(r"\*", ".*"), name))
        group = next(fitting, name)
        counts[group] = counts.get(group, 0) + number
    return counts


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_what_readme_says_of_langgraphs_tests_is_true(
    suite: Suite, sources: Path, cluster: Cluster, tmp_path: Path
) -> None:
    tests = sources / suite.directory
    with memoryd(cluster, suite, tests, tmp_path) as place:
        found = outcomes(suite, tests, place)
    passing, total, expected = claims(suite)
    failing = {name: ok.count(False) for name, ok in found.items() if not all(ok)}
    assert grouped(failing, expected) == expected
    assert sum(map(sum, found.values())) == passing
    assert sum(map(len, found.values())) == total
