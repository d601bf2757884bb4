"""Where the server listens: a socket that only its user (and root) can reach."""

import hashlib
import os
import pwd
import re
import stat
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from app.embedded.access import let_in
from app.embedded.errors import EmbeddedPostgresError

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"
_SOCKET_BYTES = 103  # sun_path less its final NUL: 107 on Linux, 103 on macOS
_PLAIN_PATH = re.compile(r"[\w./-]+", re.ASCII)


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
