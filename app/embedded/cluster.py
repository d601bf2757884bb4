"""The cluster, which is the directory that holds the databases: made once, checked ever after."""

import os
import pwd
import shutil
from pathlib import Path

from app.embedded.access import let_in, make_readable
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.programs import MAJOR_VERSION, program_directory, run_program
from app.embedded.settings import tuned_settings
from app.embedded.users import server_user

# `all all` covers every database and role but not replication, which backups use.
_HBA = "local all all peer map=memoryd\nlocal replication all peer map=memoryd\n"

# In template1, so that every database made later has the extension too.
_PROVISION = """\
CREATE EXTENSION vector;
CREATE ROLE memoryd LOGIN;
CREATE DATABASE memoryd OWNER memoryd;
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
