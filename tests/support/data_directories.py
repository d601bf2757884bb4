"""Data directories of the embedded PostgreSQL, and the ends that its processes meet."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def data_directory() -> Iterator[Path]:
    """Yield the place of a directory to be made; a server that is left over in it ends.

    Not in pytest's temporary directory: pytest takes the permissions of others off it whenever a
    run starts, which would cut off a server that runs as another user for root.
    """
    with TemporaryDirectory(prefix="memoryd-test-") as name:
        yield Path(name) / "data"
        kill_postgres(Path(name) / "data")


def postmaster(data_dir: Path) -> int | None:
    """Return the process of the server of a directory, if its file is there."""
    pid_file = data_dir / "postgres" / "postmaster.pid"
    return int(pid_file.read_text().split()[0]) if pid_file.exists() else None


def kill_postgres(data_dir: Path) -> None:
    """End the postmaster and its children at once, as a power cut would."""
    pid = postmaster(data_dir)
    if pid is None or command_of(pid) != "postgres":
        return
    doomed = [pid, *children_of(pid)]
    for process in doomed:
        kill(process)
    while any(command_of(process) == "postgres" for process in doomed):
        time.sleep(0.005)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children_of(parent: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if _stat(int(entry.name))[3:4] == [str(parent)]
    ]


def command_of(pid: int) -> str | None:
    """Return the name of a process that has not ended."""
    stat = _stat(pid)
    return stat[1] if stat and stat[2] != "Z" else None


def _stat(pid: int) -> list[str]:
    """Return the process's id, name, state, and parent; nothing if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    before, _, after = text.rpartition(") ")
    number, _, name = before.partition(" (")
    return [number, name, *after.split()[:2]]
