"""A second client, which measures the delays of /healthz and the memory of the server's processes.

A process of its own, so that the attack's work does not delay it. It prints a reading when its
standard input is closed.

python -m benchmarks.stall.watch URL PID
"""

import json
import os
import select
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE")
_REQUEST = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


class Memory:
    """Peaks of a server process, and of its workers together; PostgreSQL does not count."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._workers: list[int] = []
        self._look_at = 0.0
        self.peaks = {"server": 0, "workers": 0}

    def sample(self) -> None:
        """Take one sample."""
        if time.monotonic() >= self._look_at:
            self._workers = descendants(self._pid)
            self._look_at = time.monotonic() + _LOOK_SECONDS
        now = {"server": resident(self._pid), "workers": sum(map(resident, self._workers))}
        self.peaks = {name: max(peak, now[name]) for name, peak in self.peaks.items()}


def resident(pid: int) -> int:
    """Return the resident bytes of a process; 0 if it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def descendants(pid: int) -> list[int]:
    """Return the descendants of a process, except PostgreSQL's."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        for child in children.get(pending.pop(), ()):
            if not is_postgres(child):
                found.append(child)
                pending.append(child)
    return found


def is_postgres(pid: int) -> bool:
    """Whether a process is PostgreSQL's."""
    with suppress(OSError):
        return "postgres" in Path(f"/proc/{pid}/comm").read_text()
    return True


def probe(host: str, port: int, memory: Memory) -> float:
    """Return the seconds until /healthz answered on a new connection."""
    began = time.perf_counter()
    with suppress(OSError), socket.create_connection((host, port), timeout=1) as connection:
        connection.sendall(_REQUEST)
        while time.perf_counter() - began < PATIENCE_SECONDS:
            memory.sample()
            if select.select([connection], [], [], PAUSE_SECONDS)[0]:
                answer = connection.recv(4096)
                if answer.startswith(b"HTTP/1.1 200"):
                    return time.perf_counter() - began
                break
    return PATIENCE_SECONDS


def main() -> None:
    """Watch until standard input is closed."""
    parts, memory = urlsplit(sys.argv[1]), Memory(int(sys.argv[2]))
    delays: list[float] = []
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        delays.append(probe(parts.hostname or "", parts.port or 80, memory))
        memory.sample()
    print(json.dumps({"delays": delays, "peaks": memory.peaks}))


if __name__ == "__main__":
    main()
