"""Middleware for every request: an id and a log line."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import internal_error, shutting_down

_PROCESS = secrets.token_hex(4).encode()
_NUMBERS = itertools.count(1)

_ACCEPTABLE_ID = re.compile(rb"[\w.:-]{1,128}")

_logger = structlog.get_logger("memoryd.requests")


class RequestContext:
    """Gives every response an `x-request-id` (the client's own if it sent one) and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        started = time.perf_counter()
        status = 500
        started_response = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, started_response
            if message["type"] == "http.response.start":
                status, started_response = message["status"], True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the server shuts down and waits no longer
                if started_response:
                    raise
                await shutting_down()(scope, receive, send_with_id)
            except Exception:
                _logger.exception("request failed", method=scope["method"], path=scope["path"])
                if started_response:
                    raise
                await internal_error()(scope, receive, send_with_id)
            finally:
                log = _logger.warning if status >= 500 else _logger.debug
                log(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 2),
                )


def request_id_of(scope: Mapping[str, Any]) -> bytes:
    """Return the id of a request: the client's own if it is fit for the log, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
            return bytes(value)
    return b"%s%08x" % (_PROCESS, next(_NUMBERS))
