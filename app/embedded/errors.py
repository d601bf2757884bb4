"""Why the embedded PostgreSQL cannot run, and what to do about it."""

import errno
import os
from pathlib import Path

from app.errors import OperatorError


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
