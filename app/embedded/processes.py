"""Which server runs, as `postmaster.pid`, the system and the server itself say."""

import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.embedded.sockets import SOCKET_NAME

_SSL_REQUEST = struct.pack("!II", 8, 80877103)  # answered with "N" on such sockets


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server as described by its `postmaster.pid`."""

    pid: int
    socket_dir: Path
    ready: bool

    @property
    def alive(self) -> bool:
        """True if the process runs and is not another program that got the id after a crash."""
        return command_of(self.pid) in {"postgres", ""}

    @property
    def answers(self) -> bool:
        """True if it starts a backend for us; a dying server may still be listening."""
        if not self.ready:
            return False
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket_dir / SOCKET_NAME))
                client.sendall(_SSL_REQUEST)
                return client.recv(1) == b"N"
            except OSError:
                return False


def find_server(cluster: Path) -> ServerProcess | None:
    """Return the server that `postmaster.pid` names, None if it has ended."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if not lines:
        return None
    ready = len(lines) >= 8 and lines[7].strip() == "ready"
    server = ServerProcess(abs(int(lines[0])), Path(lines[4] if ready else os.devnull), ready)
    return server if server.alive or server.answers else None


def command_of(pid: int) -> str | None:
    """Return the name of a running process, "" without /proc, None if it has ended."""
    try:
        with suppress(PermissionError):  # it runs, for another user
            os.kill(pid, 0)
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")[2].rpartition(") ")
    except ProcessLookupError:
        return None
    except FileNotFoundError:
        return None if sys.platform == "linux" else ""
    return None if rest.startswith("Z") else name


def kill_orphans(cluster: Path) -> None:
    """Kill the remaining processes of a server; call only once its main process is gone.

    They end on their own unless they are busy or stopped, and hold the shared memory until then.
    For the next server it is part of the same crash.
    """
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        with suppress(OSError):  # it has ended, or is not ours to look at
            if (process / "cwd").readlink() == cluster and command_of(pid) == "postgres":
                os.kill(pid, signal.SIGKILL)
