"""The local model tells nobody that it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_EMBED = """
import asyncio, sys
from pathlib import Path
from app.providers.local_embedder import LocalEmbedder
embedder = LocalEmbedder(Path(sys.argv[1]))
(vector,) = asyncio.run(embedder.embed(["hello"]))
print(len(vector))
"""


@pytest.mark.slow
def test_nothing_is_written_to_a_home_directory(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    run = subprocess.run(
        [sys.executable, "-c", _EMBED, str(tmp_path / "models")],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "384"
    assert list(home.iterdir()) == []
