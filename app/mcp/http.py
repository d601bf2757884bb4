"""MCP over streamable HTTP (`/mcp`); it is stateless, so any process can answer any request."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from app.auth.access import Verb
from app.auth.dependencies import Guard
from app.auth.errors import ForbiddenError
from app.background import background
from app.conversations.memories import parse_argument
from app.errors import InvalidRequestError
from app.http.messages import MEMORY, check_count, check_query_size, read_bytes, read_query
from app.json_values import parse_json
from app.mcp.server import Context, create_server
from app.namespaces import parse_labels
from app.resources import Resources
from app.schemas import MCP, Schema, WrittenNamespace
from app.tools.tool import Caller


@asynccontextmanager
async def running_mcp(resources: Resources) -> AsyncIterator[StreamableHTTPSessionManager]:
    """Serve MCP while the process runs; yield the session manager."""
    manager = StreamableHTTPSessionManager(
        create_server(resources, _caller_of),
        stateless=True,
        json_response=True,
        max_request_body_size=sys.maxsize,  # `_read_whole` counts the bytes
    )
    # In a task of its own: the SDK's scopes must end in the task that opened them, and a lifespan
    # may end in another one.
    started = asyncio.Event()
    async with background(_run(manager, started)):
        await started.wait()
        yield manager


async def _run(manager: StreamableHTTPSessionManager, started: asyncio.Event) -> None:
    async with manager.run():
        started.set()
        await asyncio.Event().wait()  # until canceled


def _check_not_empty(namespace: str) -> str:
    if not parse_labels(namespace):
        raise ValueError("is empty; leave it out to see everything that the key may see")
    return namespace


class _Connection(Schema):
    """The URL's query; a mistake in it must not give access to everything."""

    namespace: Annotated[WrittenNamespace, AfterValidator(_check_not_empty)] | None = None


_GUARD = Guard(*Verb)
"""The route needs any verb; each tool checks its own."""


class McpEndpoint:
    """Handles `POST /mcp`; raises the same errors as other routes before the protocol begins."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request = Request(scope, receive)
        access = await _GUARD.admit(request)
        check_query_size(request)
        _check_content_type(request)
        caller = Caller(access=access, namespace=_namespace(request))
        if not caller.confined.grants:
            raise ForbiddenError(access.actor, Verb.READ, list(caller.namespace))
        request.state.caller = caller
        manager: StreamableHTTPSessionManager = request.state.mcp
        with MEMORY.share() as grow:
            whole = await _read_whole(request, receive, grow)
            await manager.handle_request(_normalized(request), whole, send)


ROUTES = [
    Route(path, McpEndpoint(), methods=["POST"], include_in_schema=False)
    for path in ("/mcp", "/mcp/")  # clients drop the body when they follow a redirect
]
"""GET would open a stream, and a server without sessions has nothing to send on one."""


def _caller_of(context: Context) -> Caller:
    assert context.request is not None  # noqa: S101  # every request comes over HTTP
    caller: Caller = context.request.state.caller
    return caller


def _check_content_type(request: Request) -> None:
    """Raise InvalidRequestError for a media type that the SDK would refuse in plain text."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise InvalidRequestError(
            "Send a JSON-RPC request, with the header Content-Type: application/json.",
            field="body",
        )


def _normalized(request: Request) -> Scope:
    """Return the request's scope with the headers as the SDK compares them.

    Without an Accept header a client accepts any type, and case does not matter (RFC 9110).
    """
    accepted = request.headers.get("accept", "").strip() or "*/*"
    replaced = {b"accept": accepted.encode("latin-1"), b"content-type": b"application/json"}
    headers = [pair for pair in request.scope["headers"] if pair[0] not in replaced]
    return {**request.scope, "headers": [*headers, *replaced.items()]}


async def _read_whole(request: Request, receive: Receive, grow: Callable[[int], None]) -> Receive:
    """Return a `receive` that yields the whole body at once, read within our limits.

    The SDK has no such limits, and reports an incomplete body as an internal error.
    """
    body = await read_bytes(request, MCP.max_bytes(request.state.resources.settings), grow)
    check_count(body, MCP.values)
    body = _read_message(body)
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


def _read_message(body: bytes) -> bytes:
    """Return a request whose arguments are an object; some clients send them as JSON text.

    Raises InvalidRequestError for an id that the SDK would take for none, and never answer.
    """
    try:
        message = parse_json(body)
    except ValueError:
        return body  # the SDK reports it
    if not isinstance(message, dict):
        return body
    id_ = message.get("id", "")
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        raise InvalidRequestError("id is neither a string nor an integer.", field="id")
    parameters = message.get("params")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("arguments"), str):
        return body
    arguments = parse_argument(parameters["arguments"])
    if not isinstance(arguments, dict):
        return body
    return json.dumps({**message, "params": {**parameters, "arguments": arguments}}).encode()


def _namespace(request: Request) -> tuple[str, ...]:
    """Return the namespace in the URL, to which the connection is confined; empty: none."""
    if len(request.query_params.getlist("namespace")) > 1:
        raise InvalidRequestError(
            "The URL has several namespaces; send one of them.", field="namespace"
        )
    text = read_query(_Connection, request).namespace
    return () if text is None else tuple(parse_labels(text))
