"""Whose requests a server without keys answers: only those that this machine's user means to make.

A page that a browser on this machine shows may call whatever listens here: under a name of its own
that leads to 127.0.0.1 (DNS rebinding), or without reading the answer. It has no key, so where
keys are asked for, there is nothing to check.
"""

import re
from collections.abc import Mapping

from app.auth.errors import NotLocalError

_HOST = r"(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d*)?"
_LOCAL_HOST = re.compile(_HOST, re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rf"https?://{_HOST}", re.IGNORECASE)


def check_local(headers: Mapping[str, str]) -> None:
    """Raise NotLocalError unless a request names this machine, and so does its page, if any."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _LOCAL_HOST.fullmatch(host):
        raise NotLocalError(f"at localhost, and not at {host!r}")
    if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
        raise NotLocalError(f"to pages of this machine, and not of {origin!r}")
