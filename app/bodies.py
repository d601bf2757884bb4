"""Bodies of requests: read within their route's limits, parsed within a budget, validated."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from email.message import Message
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import override

from app.admission import OverloadedError
from app.errors import BodyTooLargeError, InvalidRequestError
from app.json_input import TooDeepError, TooManyValuesError, check_values, parse_json
from app.problems import invalid_request, listed_errors
from app.schemas import Body

_LARGE_BYTES = 1 << 16
"""Others get their turn between reading, parsing and validating a body of this size."""

_NOT_JSON = {"type": "model_type", "loc": ("body",), "msg": ""}
_MISSING = {"type": "missing", "loc": ("body",), "msg": ""}


class ReadRequest(Request):
    """A request whose body was read: as bytes, and as the model that FastAPI hands to the route."""

    def __init__(self, request: Request, raw: bytes, body: Body) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._model = body

    @override
    async def body(self) -> bytes:
        """Return the bytes that were read."""
        return self._raw

    @override
    async def json(self) -> Any:
        """Return the validated body; FastAPI passes a model on as it is."""
        return self._model


class BodyMemory:
    """Memory for the bodies that a process works on; the first 64 KiB of each are free.

    Parsed, a body takes several times its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield what to call with the size of a body as it grows; raises OverloadedError."""
        own = 0

        def grow(size: int) -> None:
            nonlocal own
            more = max(0, size - _LARGE_BYTES) - own
            others = self._held - own
            if others and self._held + more > self._max_bytes:
                raise OverloadedError
            own += more
            self._held += more

        try:
            yield grow
        finally:
            self._held -= own


MEMORY = BodyMemory(32 << 20)


async def read_bytes(request: Request, max_bytes: int, grow: Callable[[int], None]) -> bytes:
    """Return a body; raises BodyTooLargeError, before more than that is held in memory."""
    if _declared_bytes(request) > max_bytes:
        raise BodyTooLargeError(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                size += len(chunk)
                if size > max_bytes:
                    raise BodyTooLargeError(max_bytes)
                grow(size)
                chunks.append(chunk)
    except ClientDisconnect as error:
        raise HTTPException(400) from error
    return b"".join(chunks)


async def parse_body(request: Request, raw: bytes, max_values: int) -> Any:
    """Return a body's JSON; raises InvalidRequestError, and HTTPException for endless nesting."""
    if not raw:
        raise invalid_request([_MISSING])
    if not _is_json(request.headers.get("content-type")):
        raise invalid_request([_NOT_JSON])
    if len(raw) > _LARGE_BYTES:
        await asyncio.to_thread(check_count, raw, max_values)
    else:
        check_count(raw, max_values)
    try:
        return parse_json(raw)
    except TooDeepError as error:
        raise HTTPException(400) from error
    except ValueError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}.", field="body") from error


def check_count(raw: bytes, max_values: int) -> None:
    """Raise InvalidRequestError if a body has more JSON values."""
    try:
        check_values(raw, max_values)
    except TooManyValuesError as error:
        raise InvalidRequestError(
            f"The body {error}, the limit of this route. Send less at once.", field="body"
        ) from error


def validate_body(model: type[Body], parsed: Any) -> Body:
    """Return the body as the route takes it; raises InvalidRequestError naming each field."""
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in listed_errors(error)]
        raise invalid_request(found) from error


async def give_way(raw: bytes) -> None:
    """Let other requests run before the next step with a large body."""
    if len(raw) > _LARGE_BYTES:
        await asyncio.sleep(0)


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 20 else 0


def _is_json(content_type: str | None) -> bool:
    """Tell whether a body is JSON by its header; without one it is."""
    if not content_type:
        return True
    if content_type == "application/json":
        return True
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    is_application = message.get_content_maintype() == "application"
    return is_application and (subtype == "json" or subtype.endswith("+json"))
