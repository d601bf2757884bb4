"""What happens around every request: an id, a log line, and a limit on its body."""

import itertools
import re
import secrets
import time

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import internal_error

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
        request_id = _request_id(scope)
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


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
            return bytes(value)
    return b"%s%08x" % (_PROCESS, next(_NUMBERS))


class BodyLimit:
    """Refuses bodies that are too large, whether or not they say so beforehand.

    FastAPI's own limit answers from outside of `RequestContext`: in plain text, without an id.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        declared = _declared_bytes(scope)
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if declared > self._max_bytes:
                raise HTTPException(413)
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_within_limit, send)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope.get("headers", ()):
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
