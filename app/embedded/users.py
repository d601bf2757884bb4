"""Which user of the system runs PostgreSQL, and its access to files and programs."""

import errno
import fcntl
import os
import pwd
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.embedded.programs import EmbeddedPostgresError

_SYSTEM_USER = "pgserver"

# An access list is a number of version and rows of tag, permissions and user id
# (linux/posix_acl_xattr.h); all tags but _USER have _NOBODY for a user id.
_ACCESS_LIST = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ROW = "<HHI"
_OWNER, _USER, _GROUP, _MASK, _OTHER = 1, 2, 4, 16, 32
_NOBODY = 0xFFFFFFFF
_SEARCH = 1


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


def let_in(uid: int, directories: Iterable[Path]) -> None:
    """Let one user, and no others, pass through directories on the way to its files."""
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
                f"User {user_of(uid).pw_name}, who runs PostgreSQL, cannot pass through "
                f"{directory}, and its file system has no access lists. Run: chmod o+x {directory}"
            ) from error


def make_readable(installation: Path) -> None:
    """Undo a strict umask at the package's installation: its files hold no secrets."""
    if (installation / "bin" / "postgres").stat().st_mode & stat.S_IROTH:
        return
    for path in (installation, *installation.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (mode & 0o500) >> 6)


def _grant_search(directory: Path, uid: int) -> None:
    """Add `user:uid:--x` to a directory's access list."""
    entries = _access_list(directory)
    wanted = entries | {(_USER, uid): entries.get((_USER, uid), 0) | _SEARCH}
    mask = entries.get((_MASK, _NOBODY), entries[_GROUP, _NOBODY])
    wanted[_MASK, _NOBODY] = mask | _SEARCH
    if wanted != entries:
        rows = (struct.pack(_ROW, tag, bits, who) for (tag, who), bits in sorted(wanted.items()))
        os.setxattr(directory, _ACCESS_LIST, _VERSION + b"".join(rows))


def _access_list(directory: Path) -> dict[tuple[int, int], int]:
    """Return permissions by tag and user id, from the mode if there is no list."""
    try:
        raw = os.getxattr(directory, _ACCESS_LIST)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        by_class = {_OWNER: mode >> 6 & 7, _GROUP: mode >> 3 & 7, _OTHER: mode & 7}
        return {(tag, _NOBODY): bits for tag, bits in by_class.items()}
    rows = struct.iter_unpack(_ROW, raw[len(_VERSION) :])
    return {(tag, who): bits for tag, bits, who in rows}
