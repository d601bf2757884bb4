"""Small disks that a test can fill."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A file system in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self) -> None:
        """Fill the space that is free now, and none that is freed meanwhile."""
        with (self.directory / "filler").open("wb") as filler:
            size = shutil.disk_usage(self.directory).free
            while size > 0:
                try:
                    os.posix_fallocate(filler.fileno(), 0, size)
                except OSError:  # others write at the same time
                    size -= 64 << 10
                else:
                    return

    def free(self) -> None:
        """Remove what filled it."""
        (self.directory / "filler").unlink()


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small disk; skip the test if this process may not."""
    with tempfile.TemporaryDirectory(prefix="memoryd-test-") as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "disk"
        directory.mkdir()
        options = f"size={megabytes}m,mode=755"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
        mounted = subprocess.run(mount, capture_output=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
        try:
            yield SmallDisk(directory)
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)  # noqa: S607
