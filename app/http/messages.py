"""Requests as models and answers as JSON: bodies within limits, query strings, and responses.

FastAPI's own reading of a query model and two headers took a quarter of a get's time
(docs/decisions/0004-hot-path.md), so the routes on the hot path read theirs here. Values of items
pass through as text (`orjson.Fragment`), never parsed.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from email.message import Message
from typing import Any, TypeVar

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import override

from app.errors import BodyTooLargeError, InvalidRequestError, invalid_request, list_errors
from app.http.request_context import OverloadedError
from app.json_values import TooDeepError, TooManyValuesError, check_values, parse_json
from app.schemas import Body

_LARGE_BYTES = 1 << 16
"""Between the steps with a larger body, other requests get a turn."""

_FREE_BYTES = 1 << 12

_NOT_JSON = {"type": "model_type", "loc": ("body",), "msg": ""}
_MISSING = {"type": "missing", "loc": ("body",), "msg": ""}


class ReadRequest(Request):
    """A request whose body has been read: as bytes, and as the model that the route takes."""

    def __init__(self, request: Request, raw: bytes, body: Body) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._model = body

    @property
    def is_large(self) -> bool:
        """True if the body counts toward the memory that all bodies share."""
        return len(self._raw) > _LARGE_BYTES

    @override
    async def body(self) -> bytes:
        """Return the body's bytes."""
        return self._raw

    @override
    async def json(self) -> Any:
        """Return the validated body; FastAPI passes a model through unchanged."""
        return self._model


class BodyMemory:
    """A budget for the bodies that a process holds at once; the first 4 KiB of each are free.

    A parsed body takes several times its size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @property
    def is_scarce(self) -> bool:
        """True if large bodies that are held for long could keep out those of others."""
        return self._held * 2 > self._max_bytes

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with a body's size as it grows; it raises OverloadedError."""
        own = 0

        def grow(size: int) -> None:
            nonlocal own
            more = max(0, size - _FREE_BYTES) - own
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


def may_be_held(request: Request) -> bool:
    """Return whether a request may keep its body in memory while it waits for a job."""
    is_large = isinstance(request, ReadRequest) and request.is_large
    return not (is_large and MEMORY.is_scarce)


async def read_bytes(request: Request, max_bytes: int, grow: Callable[[int], None]) -> bytes:
    """Return a body; raises BodyTooLargeError before it holds more than `max_bytes`."""
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
    """Return a body's JSON; raises InvalidRequestError, or HTTPException for deep nesting."""
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
    """Raise InvalidRequestError if a body has more than `max_values` JSON values."""
    try:
        check_values(raw, max_values)
    except TooManyValuesError as error:
        raise InvalidRequestError(
            f"The body {error}, the limit of this route. Send less at once.", field="body"
        ) from error


def validate_body(model: type[Body], parsed: Any) -> Body:
    """Return the validated body; raises InvalidRequestError that names each wrong field."""
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in list_errors(error)]
        raise invalid_request(found) from error


async def give_way(raw: bytes) -> None:
    """Let other requests run before the next step, if the body is large."""
    if len(raw) > _LARGE_BYTES:
        await asyncio.sleep(0)


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 20 else 0


def _is_json(content_type: str | None) -> bool:
    """Return whether a content type is JSON; a missing one counts as JSON."""
    if not content_type:
        return True
    if content_type == "application/json":
        return True
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    is_application = message.get_content_maintype() == "application"
    return is_application and (subtype == "json" or subtype.endswith("+json"))


MAX_PARAMETERS = 32

Query = TypeVar("Query", bound=BaseModel)


def check_query_size(request: Request) -> None:
    """Raise InvalidRequestError if the URL has more parameters than any route takes."""
    if request.scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise InvalidRequestError(
            f"The URL has more than {MAX_PARAMETERS} query parameters; leave some out."
        )


def read_query(model: type[Query], request: Request) -> Query:
    """Return the query string as a model; raises InvalidRequestError naming the parameter."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in list_errors(error)]
        raise invalid_request(found) from error


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the OpenAPI parameters of a query model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": described.pop("description", ""),
            "schema": _inlined(described, definitions),
        }
        for name, described in schema["properties"].items()
    ]


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema without references: there is nothing in the document that they lead to."""
    if isinstance(node, list):
        return [_inlined(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return definitions[node["$ref"].removeprefix("#/$defs/")]
    return {name: _inlined(part, definitions) for name, part in node.items()}


CHUNK_BYTES = 16 << 10
"""Size of the chunks of an answer that is sent as the client takes it."""


def json_response(
    members: Any, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(members), status, headers, media_type="application/json")
