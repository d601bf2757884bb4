"""The `memoryd` command, run to its end."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.server import MEMORYD, clean_environment


def memoryd(
    *arguments: str, environment: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run the command; a .env file or data directory is looked for in `cwd`."""
    return subprocess.run(
        [MEMORYD, *arguments],
        env={**clean_environment(), "MEMORYD_EMBEDDING": "fake:hashed", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
