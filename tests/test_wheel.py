"""The wheel: installed into an empty environment, it serves without the checkout."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.support.server import Server, clean_environment

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow  # builds a wheel and starts a server


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    # Without isolation, so that nothing is downloaded; the lock has the build backend.
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory)]
    subprocess.run([*pip, *options, str(ROOT)], check=True, cwd=directory)
    (built,) = directory.glob("memoryd-*.whl")
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `memoryd` of an environment with the wheel, and with dependencies from here."""
    environment = tmp_path_factory.mktemp("wheel") / "venv"
    venv.create(environment, with_pip=True, symlinks=True)
    python = str(environment / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    # A plain line adds a directory, but does not run its .pth files: one of those is the checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "memoryd"


def run(command: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [command, *arguments],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_wheel_carries_the_migrations_and_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    versions = {path.name for path in (ROOT / "alembic" / "versions").glob("*.py")}
    assert {f"app/db/alembic/versions/{name}" for name in versions} <= names
    assert "memoryd-0.1.0.dist-info/licenses/LICENSE" in names
    assert not any(name.startswith(("alembic/", "tests/")) for name in names)


def test_it_knows_its_version(command: Path, tmp_path: Path) -> None:
    assert run(command, "--version", cwd=tmp_path) == "memoryd 0.1.0\n"


def test_the_checkout_is_not_imported(command: Path, tmp_path: Path) -> None:
    python = command.parent / "python"
    place = run(python, "-c", "import app; print(app.__file__)", cwd=tmp_path)
    assert Path(place).is_relative_to(command.parent.parent)


def test_it_migrates_and_serves(command: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    server = Server(
        ["--data-dir", str(tmp_path / "data")], {"MEMORYD_EMBEDDING": "none"}, log, command=command
    )
    try:
        server.wait_until_it_answers(120)  # it makes its database first
        item = {"namespace": ["users", "ann"], "key": "pet", "value": {"text": "a parrot"}}
        put = Request(  # noqa: S310
            f"{server.url}/v1/store/items",
            data=json.dumps(item).encode(),
            headers={"content-type": "application/json"},
            method="PUT",
        )
        with urlopen(put, timeout=10) as answer:  # noqa: S310
            assert answer.status == 204
        with urlopen(f"{server.url}/v1/store/items?namespace=users.ann&key=pet") as answer:  # noqa: S310
            assert json.load(answer)["value"] == {"text": "a parrot"}
    finally:
        server.stop()
