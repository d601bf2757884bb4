"""Starting PostgreSQL's main process, and ending it."""

import errno
import os
import pwd
import re
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from app.embedded.cluster import prepare_cluster
from app.embedded.errors import EmbeddedPostgresError, failure
from app.embedded.processes import command_of, find_server, kill_orphans
from app.embedded.programs import program_directory, run_program
from app.embedded.sockets import PORT, SOCKET_NAME, make_socket_dir

_START_SECONDS = 300.0  # recovery after a crash replays up to max_wal_size of log
_STOP_SECONDS = 120.0
_RELEASE_SECONDS = 30.0  # how long the processes of a crashed server may take to end
_ORPHAN_SECONDS = 2.0  # how long to wait before killing them
_TICK_SECONDS = 0.01

# A shell leaves the server to init, so that no memoryd process has to reap it, and in a
# session of its own, where Ctrl-C does not reach it.
_DETACH = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'


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
