"""PostgreSQL's main process: its socket, finding out whether it runs, starting and ending it."""

import errno
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from app.embedded.cluster import prepare_cluster
from app.embedded.programs import EmbeddedPostgresError, failure, program_directory, run_program
from app.embedded.users import let_in

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
_SOCKET_BYTES = 103  # sun_path less its final NUL: 107 on Linux, 103 on macOS
_PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)

_SSL_REQUEST = struct.pack("!II", 8, 80877103)  # answered with "N" on such sockets

_START_SECONDS = 300.0  # recovery after a crash replays up to max_wal_size of log
_STOP_SECONDS = 120.0
_RELEASE_SECONDS = 30.0  # how long the processes of a crashed server may take to end
_ORPHAN_SECONDS = 2.0  # how long to wait before killing them
_TICK_SECONDS = 0.01

# A shell leaves the server to init, so that no memoryd process has to reap it, and in a
# session of its own, where Ctrl-C does not reach it.
_DETACH = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'


def make_socket_dir(cluster: Path, user: pwd.struct_passwd) -> Path:
    """Return a directory that only the server's user (and root) can enter.

    It is the cluster itself unless its path is too long for a socket or could be misread in
    a URL or a setting; then a private directory under the system's one for temporary files.
    """
    if _fits_socket(cluster):
        return cluster
    private = Path(tempfile.gettempdir()).resolve() / f"memoryd-{user.pw_uid}-{_digest(cluster)}"
    if not _fits_socket(private):
        raise EmbeddedPostgresError(f"Set TMPDIR to a short path of plain letters: {private}.")
    _make_private(private, user)
    return private


def leads_to(url: str, cluster: Path) -> bool:
    """Return whether a URL leads to the server of a cluster."""
    host = Path(parse_qs(urlsplit(url).query).get("host", [""])[0])
    return host == cluster or host.name.endswith(f"-{_digest(cluster)}")


def _digest(cluster: Path) -> str:
    return hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]


def _fits_socket(directory: Path) -> bool:
    path = str(directory / SOCKET_NAME)
    return len(path) <= _SOCKET_BYTES and _PLAIN_PATH.fullmatch(path) is not None


def _make_private(directory: Path, user: pwd.struct_passwd) -> None:
    """Make a directory for `user`, in a place where another user may have made one already."""
    if user.pw_uid != os.geteuid():
        let_in(user.pw_uid, directory.parents)
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid in {user.pw_uid, os.geteuid()}
    if not ours or found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"Remove {directory}: it is not private to {user.pw_name}.")
    os.chown(directory, user.pw_uid, -1)


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


def ensure_running(cluster: Path, gate: int, stopping: threading.Event | None = None) -> Path:
    """Return the socket directory of a server that answers; call with the gate held.

    Raises EmbeddedPostgresError, also if `stopping` is set before the server answers.
    """
    stopping = stopping or threading.Event()
    began = time.monotonic()
    while True:
        server = find_server(cluster)
        if server is not None and server.answers:
            return server.socket_dir
        if server is None:
            obstacle = _launch(cluster, prepare_cluster(cluster, gate), stopping)
            patience = _RELEASE_SECONDS
            if obstacle and time.monotonic() - began > _ORPHAN_SECONDS:
                kill_orphans(cluster)
        else:
            obstacle, patience = f"process {server.pid} is not ready.", _START_SECONDS
        if obstacle and time.monotonic() - began > patience:
            raise EmbeddedPostgresError(
                f"PostgreSQL in {cluster} does not start: {obstacle} End the processes "
                f"that `ps` shows with this directory, then start again."
            )
        if stopping.wait(_TICK_SECONDS):
            raise EmbeddedPostgresError("PostgreSQL was not started: memoryd is ending.")


def shut_down(cluster: Path) -> None:
    """Stop the server; call with the gate held and no other process using it."""
    server = find_server(cluster)
    if server is None or not server.alive:
        return
    os.kill(server.pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
    give_up = time.monotonic() + _STOP_SECONDS
    while command_of(server.pid) is not None:
        if time.monotonic() > give_up:
            raise EmbeddedPostgresError(
                f"PostgreSQL process {server.pid} is still shutting down; nothing is lost. "
                f"Wait for it to end before the machine goes down."
            )
        time.sleep(_TICK_SECONDS)
    if server.socket_dir != cluster:
        with suppress(OSError):  # an empty directory may stay
            server.socket_dir.rmdir()


def _launch(cluster: Path, user: pwd.struct_passwd, stopping: threading.Event) -> str:
    """Start a server and wait for it; return a temporary obstacle, or ""."""
    socket_dir = make_socket_dir(cluster, user)
    # A process id in a left-over lock file may have gone to another program. Removing them is
    # safe: a server that finds the shared memory of its directory in use does not start.
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    (socket_dir / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
    startup_log = cluster / "startup.log"
    command = [str(program_directory() / "postgres"), "-D", str(cluster), "-p", str(PORT)]
    command += ["-h", "", "-k", str(socket_dir), "-c", "unix_socket_permissions=0700"]
    pid = int(run_program(["/bin/sh", "-c", _DETACH, "sh", str(startup_log), *command], user))
    if _comes_up(cluster, pid, stopping):
        return ""
    output = startup_log.read_text(errors="replace")
    if obstacle := re.search(r"pre-existing shared memory block.*|lock file .* exists", output):
        return f"{obstacle[0]}."
    if shutil.disk_usage(cluster).free < 2**24:  # one segment of the write-ahead log
        output = os.strerror(errno.ENOSPC)
    raise failure(output, cluster / "log")


def _comes_up(cluster: Path, pid: int, stopping: threading.Event) -> bool:
    """Wait until the server answers; False if its process ends first, or takes too long."""
    give_up = time.monotonic() + _START_SECONDS
    while command_of(pid) is not None and time.monotonic() < give_up:
        server = find_server(cluster)
        if server is not None and server.answers:
            return True
        if stopping.wait(_TICK_SECONDS):
            raise EmbeddedPostgresError("PostgreSQL is still starting, and memoryd is ending.")
    return False
