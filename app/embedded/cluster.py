"""The cluster, which is the directory that holds the databases: made once, checked ever after.

Its settings are fitted to the machine; the reasons are in docs/decisions/0003.
"""

import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path

from app.embedded.programs import (
    MAJOR_VERSION,
    EmbeddedPostgresError,
    program_directory,
    run_program,
)
from app.embedded.users import let_in, make_readable, server_user

# `all all` covers every database and role but not replication, which backups use.
_HBA = "local all all peer map=memoryd\nlocal replication all peer map=memoryd\n"

# In template1, so that every database made later has the extension too.
_PROVISION = """\
CREATE EXTENSION vector;
CREATE ROLE memoryd LOGIN;
CREATE DATABASE memoryd OWNER memoryd;
"""

_TEMPLATE = """\
# Written by memoryd at first start for {memory} MB of memory. Yours to change: never rewritten.
# Where the server listens is set when it starts and cannot be changed here.
max_connections = 200
shared_buffers = {shared_buffers}MB
effective_cache_size = {effective_cache_size}MB
work_mem = {work_mem}MB
maintenance_work_mem = {maintenance_work_mem}MB
autovacuum_work_mem = 64MB
dynamic_shared_memory_type = {shared_memory_type}
wal_compression = on
max_wal_size = {max_wal_size}MB
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


def prepare_cluster(cluster: Path, gate: int) -> pwd.struct_passwd:
    """Make sure that there is a cluster we can run, return the user to run it as."""
    programs = program_directory()
    user = server_user(cluster)
    if user.pw_uid != os.geteuid():
        let_in(user.pw_uid, [*programs.parents, *cluster.parents])
        make_readable(programs.parent)
    version = cluster / "PG_VERSION"
    if version.exists():
        _check_version(cluster, version.read_text().strip())
    else:
        _create(cluster, user, gate)
    return user


def _check_version(cluster: Path, found: str) -> None:
    if found != MAJOR_VERSION:
        raise EmbeddedPostgresError(
            f"{cluster} was written by PostgreSQL {found}; this memoryd brings {MAJOR_VERSION}. "
            f"Dump it with PostgreSQL {found} (pg_dump), move the directory away, start "
            f"memoryd and load the dump; or set MEMORYD_DATABASE_URL to a server that has it."
        )


def _create(cluster: Path, user: pwd.struct_passwd, gate: int) -> None:
    """Create the cluster aside and rename it when complete, so that a crash leaves none."""
    new = cluster.with_name("postgres.new")
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    os.chown(new, user.pw_uid, -1)
    initdb = str(program_directory() / "initdb")
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    options = ("--username=postgres", "--encoding=UTF8", "--auth=reject", "--no-sync")
    run_program([initdb, *locale, *options, "-D", str(new)], user, gate)
    _configure(new, user)
    _provision(new, user, gate)
    run_program([initdb, "--sync-only", "-D", str(new)], user, gate)
    new.rename(cluster)
    _sync(cluster.parent)


def _configure(new: Path, user: pwd.struct_passwd) -> None:
    """Say who may connect, and write the settings to a file that belongs to the operator."""
    (new / "pg_hba.conf").write_text(_HBA)
    (new / "pg_ident.conf").write_text(f'memoryd root all\nmemoryd "{user.pw_name}" all\n')
    (new / "memoryd.conf").write_text(tuned_settings(new))
    os.chown(new / "memoryd.conf", user.pw_uid, -1)
    with (new / "postgresql.conf").open("a") as main:
        main.write("\ninclude_if_exists 'memoryd.conf'\n")


def _provision(new: Path, user: pwd.struct_passwd, gate: int) -> None:
    """Make the role, the extension and the database, without a server that others could reach."""
    single = [str(program_directory() / "postgres"), "--single", "-F", "-c", "exit_on_error=on"]
    run_program([*single, "-D", str(new), "template1"], user, gate, _PROVISION)


def _sync(directory: Path) -> None:
    """Make a rename in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def tuned_settings(directory: Path) -> str:
    """Return the contents of `memoryd.conf` for this machine or container, and a disk."""
    disk = shutil.disk_usage(directory).total // 2**20
    memory = _memory_bytes() // 2**20
    return _TEMPLATE.format(
        memory=memory,
        shared_buffers=min(max(memory // 4, 32), 512),
        effective_cache_size=max(memory // 2, 64),
        work_mem=min(max(memory // 256, 4), 16),
        maintenance_work_mem=min(max(memory // 16, 64), 512),
        max_wal_size=min(max(disk // 10, 64), 2048),
        shared_memory_type=_shared_memory_type(),
    )


def _memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its container's if less."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such control group, or "max"
            sizes.append(int((Path("/sys/fs/cgroup") / limit).read_text()))
    return min(sizes)


def _shared_memory_type() -> str:
    """Return System V's where /dev/shm is small, as in a container."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - only its size is read
    roomy = not shared_memory.exists() or shutil.disk_usage(shared_memory).total >= 2**30
    return "posix" if roomy else "sysv"
