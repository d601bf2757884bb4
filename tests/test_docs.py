"""The documentation does what it shows, and is complete."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
import typer
from typer.main import get_command

from app.cli.main import cli
from app.config import Settings
from app.errors import AppError
from app.main import create_app
from tests.support.databases import Cluster
from tests.support.documented_commands import carry_out, steps_in
from tests.support.server import Server, clean_environment, free_port, serving, wait_until

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
SHOWING_COMMANDS = [document for document in DOCUMENTS if steps_in(document.read_text())]

NEEDS_OWN_SERVER = re.compile(r"^.*memoryd (?:keys|migrate|reindex) ", re.MULTILINE)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PLACE = re.compile(r'"(?:namespace|namespace_prefix|prefix)": \["([^"]+)"')
_PACKAGES = {"langgraph_sdk": "langgraph-sdk", "langmem": "langmem"}
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def title(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documents' servers share one prepared local model."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def model_port() -> Iterator[int]:
    """The port of a scripted model, started as the tutorial shows."""
    port = free_port()
    options = ["--port", str(port), "--script", "docs/tutorial/scripted-model.json"]
    command = [sys.executable, "-m", "tests.support.llm_server", *options]
    with subprocess.Popen(command, cwd=ROOT) as process:
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def environment(data_dir: Path, model_port: int) -> dict[str, str]:
    """The environment of a reader without a database; the embeddings are the default's."""
    return {
        "MEMORYD_DATA_DIR": str(data_dir),
        "MEMORYD_LLM": "openai:scripted",
        "MEMORYD_ALLOWED_MODELS": "openai:gpt-6-luna",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
    }


@dataclass(frozen=True)
class Place:
    """A server, and the environment of its reader."""

    server: Server
    environment: dict[str, str]


@contextmanager
def served(cluster: Cluster, environment: dict[str, str], log: Path) -> Iterator[Place]:
    with cluster.database() as url:
        chosen = {**environment, "MEMORYD_DATABASE_URL": url}
        with serving(log, environment=chosen, worker=True) as server:
            yield Place(server, chosen)


@pytest.fixture(scope="module")
def shared_place(
    cluster: Cluster, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with served(cluster, environment, tmp_path_factory.mktemp("server") / "log") as place:
        yield place


@pytest.fixture
def place(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """A server for the steps of a page; one of its own if they change how it serves."""
    if NEEDS_OWN_SERVER.search(request.getfixturevalue("document").read_text()):
        environment = request.getfixturevalue("environment")
        with served(cluster, environment, tmp_path / "log") as own:
            yield own
        return
    shared: Place = request.getfixturevalue("shared_place")
    wait_until(lambda: not is_working(shared.server))
    cluster.empty(shared.environment["MEMORYD_DATABASE_URL"], served=True)
    yield shared


def is_working(server: Server) -> bool:
    with urlopen(f"{server.url}/v1/jobs?state=running") as answer:  # noqa: S310
        return bool(json.load(answer)["jobs"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl, which the documents use, is absent")
@pytest.mark.parametrize("document", SHOWING_COMMANDS, ids=title)
def test_commands_answer_as_shown(
    document: Path, place: Place, model_port: int, tmp_path: Path
) -> None:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    text = document.read_text().replace("localhost:8080", f"127.0.0.1:{place.server.port}")
    text = text.replace("localhost:8090", f"127.0.0.1:{model_port}")
    shell = {**clean_environment(), **place.environment, "PATH": programs, "COLUMNS": "200"}
    steps = steps_in(text)
    answered = carry_out(steps, shell, tmp_path)
    assert len(answered) == len(steps)
    for step, answer in answered:
        assert step.agrees_with(answer), f"{step.command}\nshown:\n{step.answer}\nreal:{answer}"


def test_relative_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        links = _LINK.findall(_FENCED.sub("", document.read_text()))
        local = [link.partition("#")[0] for link in links if "://" not in link]
        broken = [link for link in local if link and not (document.parent / link).exists()]
        assert broken == [], document


def test_the_tutorial_and_the_readme_can_be_followed_in_one_store() -> None:
    places = [
        set(_PLACE.findall((ROOT / page).read_text()))
        for page in ("README.md", "docs/tutorial/first-memories.md")
    ]
    assert all(places)
    assert places[0].isdisjoint(places[1])


def test_packages_that_programs_import_are_named() -> None:
    for document, (module, package) in itertools.product(DOCUMENTS, _PACKAGES.items()):
        text = document.read_text()
        if re.search(rf"^ *(?:from|import) {module}\b", text, re.MULTILINE):
            installed = " ".join(re.findall(r"(?:pip|npm) install ([^`\n]+)", text))
            assert package in installed.split(), document


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [path for path in ROOT.glob("docs/**/*.md") if path != ROOT / "docs/README.md"]
    missing = [p for p in pages if f"({p.relative_to(ROOT / 'docs')})" not in index]
    assert [title(page) for page in missing if page.parent.name != "decisions"] == []


def test_every_error_code_is_explained() -> None:
    create_app(Settings(embedding="none"))  # imports every feature
    text = (ROOT / "docs/reference/errors.md").read_text()
    codes = {error.code for error in _below(AppError)}
    assert {code for code in codes if f"`{code}`" not in text} == set()


def _below(error: type[AppError]) -> Iterator[type[AppError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _below(kind)


def test_every_command_is_explained() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text()
    missing = [
        wanted for wanted in _documented_words(get_command(cli), "memoryd") if wanted not in text
    ]
    assert missing == []


def _documented_words(command: typer.core.TyperCommand | object, path: str) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if not commands:
        yield f"`{path}"
    for name, inner in commands.items():
        yield from _documented_words(inner, f"{path} {name}")
    for parameter in getattr(command, "params", ()):
        yield from (option for option in parameter.opts if option.startswith("--") and path)


def test_every_setting_is_explained() -> None:
    text = (ROOT / "docs/reference/settings.md").read_text()
    missing = [name for name in variables() if f"`{name}`" not in text]
    assert missing == []


def variables() -> list[str]:
    """Return the environment variable of every setting."""
    return [
        name.upper() if field.validation_alias else f"MEMORYD_{name.upper()}"
        for name, field in Settings.model_fields.items()
    ]


def test_every_tag_of_the_api_has_its_page() -> None:
    document = create_app(Settings(embedding="none")).openapi()
    operations = [
        operation for methods in document["paths"].values() for operation in methods.values()
    ]
    tags = {tag for operation in operations for tag in operation["tags"]}
    assert {tag for tag in tags if not (ROOT / f"docs/reference/{tag}.md").exists()} == set()
    assert tags >= {"store", "search", "batch"}
