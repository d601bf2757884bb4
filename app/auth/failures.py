"""Log lines about refused logins: at most a few a minute, and never a secret."""

import time
from collections.abc import Callable
from contextvars import copy_context

import structlog
from structlog.contextvars import get_contextvars, unbind_contextvars

WINDOW_SECONDS = 60.0
LINES = 20
"""Maximum lines per process and window; further failures are only counted."""

_logger = structlog.get_logger("memoryd.auth")


class FailureLog:
    """Logs refused logins, and the number of those it left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._window_ends = 0.0
        self._failures = 0

    def note(self, reason: str, key_id: str | None, client: str | None) -> None:
        """Log that a caller was refused; `key_id` is what it sent, without the secret."""
        if self._now() >= self._window_ends:
            self._begin_window()
        self._failures += 1
        if self._failures <= LINES:
            key = None if key_id is None else f"mk_{key_id}"
            copy_context().run(_log, reason, key, client)

    def _begin_window(self) -> None:
        if self._failures > LINES:
            _logger.warning("more logins refused", count=self._failures - LINES)
        self._window_ends = self._now() + WINDOW_SECONDS
        self._failures = 0


def _log(reason: str, key: str | None, client: str | None) -> None:
    # `request_id` marks one line per request, the request's own, so this one uses another name.
    request = get_contextvars().get("request_id")
    unbind_contextvars("request_id")
    _logger.warning("login refused", reason=reason, key=key, client=client, request=request)
