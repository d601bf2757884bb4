"""What the repository promises to those who install, build or deploy it."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.main import get_command

from app.cli.main import cli
from app.cli.serve import STOP_SECONDS
from app.config import Settings

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "requirements-dev.lock"]
COMMANDS: set[str] = set(getattr(get_command(cli), "commands", {}))

_LOCKED = re.compile(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==([^ ]+)(?: ; [^\\]+)? \\$")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, argument) for name, _, argument in pairs]


def arguments(instruction: str) -> list[str]:
    return [argument for name, argument in instructions() if name == instruction]


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines() == [
        "#!/usr/bin/env bash",
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
        "make test",
    ]


def test_the_image_is_pinned_installs_by_hash_and_runs_as_an_ordinary_user() -> None:
    bases = {argument.split()[0] for argument in arguments("FROM")}
    assert len(bases) == 1
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)
    assert any("--require-hashes --no-deps -r requirements.lock" in run for run in arguments("RUN"))
    assert arguments("USER") == ["10001"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > names.index("FROM", 1)
    assert arguments("EXPOSE") == ["8080"]
    assert (arguments("ENTRYPOINT"), arguments("CMD")) == (['["memoryd"]'], ['["serve"]'])
    assert "serve" in COMMANDS


def test_the_images_probe_asks_the_configured_port() -> None:
    command = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    program = command[2].replace("urllib.request.urlopen(", "print(")
    for port, asked in (("9090", "9090"), ("", "8080"), (None, "8080")):
        environment = {} if port is None else {"MEMORYD_PORT": port}
        done = subprocess.run(
            [sys.executable, "-c", program.replace(", timeout=4", "")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"http://127.0.0.1:{asked}/readyz\n"


def test_what_the_image_copies_is_not_ignored() -> None:
    copied = {
        source.removeprefix("./")
        for argument in arguments("COPY")
        if not argument.startswith("--from")
        for source in argument.split()[:-1]
    }
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in copied} <= set(kept)
    assert all((ROOT / source).exists() for source in copied)


def test_compose_runs_commands_that_exist_in_pinned_images(compose: Any) -> None:
    ours = {name: one for name, one in compose["services"].items() if "build" in one}
    assert set(ours) == {"memoryd", "worker", "migrate"}
    commands = {one.get("command", ["serve"])[0] for one in ours.values()}
    assert commands == {"serve", "worker", "migrate"} <= COMMANDS
    tags = [one["image"].partition(":")[2] for one in compose["services"].values()]
    assert all(tag and "latest" not in tag for tag in tags)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert compose["services"]["memoryd"]["image"] == f"memoryd:{version}"


def test_compose_serves_this_machine_only_and_publishes_no_database(compose: Any) -> None:
    published = {name: one["ports"] for name, one in compose["services"].items() if "ports" in one}
    assert published == {"memoryd": ["127.0.0.1:8080:8080"]}


def test_compose_migrates_before_it_serves(compose: Any) -> None:
    services = compose["services"]
    for name in ("memoryd", "worker"):
        condition = services[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]


def test_compose_lets_processes_drain(compose: Any) -> None:
    longest = Settings(_env_file=None).drain_seconds + STOP_SECONDS
    for name in ("memoryd", "worker"):
        minutes = re.fullmatch(r"(\d+)m", compose["services"][name]["stop_grace_period"])
        assert minutes
        assert int(minutes[1]) * 60 > longest + 10


def test_compose_holds_no_password(compose: Any) -> None:
    passwords = [
        value
        for service in compose["services"].values()
        for name, value in service["environment"].items()
        if "PASSWORD" in name
    ]
    assert passwords
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in passwords)


def test_the_databases_role_is_ordinary() -> None:
    script = (ROOT / "docker/create-role.sql").read_text()
    assert "CREATE ROLE memoryd LOGIN PASSWORD" in script
    assert not re.search("superuser|bypassrls", re.sub("--.*", "", script), re.IGNORECASE)


def locked(name: str) -> dict[str, str]:
    """Return each locked package's highest version; two platforms may have two."""
    versions: dict[str, str] = {}
    for line in (ROOT / name).read_text().splitlines():
        if found := _LOCKED.match(line):
            package, version = found.groups()
            versions[package] = max(versions.get(package, "0"), version, key=Version)
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_names_no_address_and_no_torch(name: str) -> None:
    text = (ROOT / name).read_text()
    requirements = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(requirements) > 50
    assert [one.split()[0] for one in requirements if "--hash=sha256:" not in one] == []
    names = {canonicalize_name(re.split(r"[=\[]", one)[0]) for one in requirements}
    assert names == set(locked(name))
    assert {"torch", "sentence-transformers"} & names == set()
    assert not re.search("://|--index-url", text)


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.lock", ["build"]), ("requirements-dev.lock", ["dev"])]
)
def test_a_lock_holds_every_direct_dependency(name: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    versions = locked(name)
    missing = [
        text
        for text, one in ((text, Requirement(text)) for text in wanted)
        if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"))
    ]
    assert missing == []


def test_both_locks_agree() -> None:
    development = locked("requirements-dev.lock")
    differing = {
        name: (version, development.get(name))
        for name, version in locked("requirements.lock").items()
        if development.get(name) != version
    }
    assert differing == {}
