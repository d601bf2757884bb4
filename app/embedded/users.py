"""Which user of the system runs PostgreSQL."""

import fcntl
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from app.embedded.errors import EmbeddedPostgresError

_SYSTEM_USER = "pgserver"


def server_user(cluster: Path) -> pwd.struct_passwd:
    """Return who runs the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return user_of(os.geteuid())
    if cluster.exists() and (owner := cluster.stat().st_uid) != 0:
        return user_of(owner)
    return _system_user()


def user_of(uid: int) -> pwd.struct_passwd:
    """Return the user who has this id."""
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {uid} has no name, which PostgreSQL needs. Add it to /etc/passwd."
        ) from None


def _system_user() -> pwd.struct_passwd:
    """Return the user that runs PostgreSQL for root, made if need be.

    One process at a time: of two that add the user at once, one may be left with an id that is
    gone a moment later.
    """
    accounts = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(accounts, fcntl.LOCK_EX)
        return _existing_or_added()
    finally:
        os.close(accounts)


def _existing_or_added() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(_SYSTEM_USER)
    problem = _add_system_user()
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and the user {_SYSTEM_USER} cannot be made "
            f"({problem}). Make it, or run memoryd as an ordinary user."
        ) from None


def _add_system_user() -> str:
    """Make the user; return what went wrong."""
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        return "useradd is missing"
    options = ["--system", "--no-create-home", "--shell", "/bin/false"]
    command = [useradd, *options, _SYSTEM_USER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stderr.strip()
