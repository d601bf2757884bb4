"""Dependencies of routes: the caller's access and the resources of the process.

A route names the verb it needs in its signature (`ReadAccess`, …). `GuardedRoute` checks key and
verb before it reads any of the body. A route whose router does not use it finds no access here and
fails.

Without keys, only requests that this machine's user means to make are answered. A page that a
browser on this machine shows may call any local server: under a name of its own that leads to
127.0.0.1 (DNS rebinding), or without reading the answer. It has no key, so with keys there is
nothing to check.

Every dependency is `async`, or FastAPI would take a thread for each call, and shallow: each further
one costs every request about twenty microseconds.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from typing_extensions import override

from app.auth.access import ANONYMOUS, Access, Verb
from app.auth.authenticator import Authenticator
from app.auth.errors import ForbiddenError, NotLocalError, UnauthenticatedError
from app.db.database import DatabaseUnavailableError
from app.errors import InvalidRequestError
from app.http.messages import (
    MEMORY,
    ReadRequest,
    check_query_size,
    give_way,
    parse_body,
    read_bytes,
    validate_body,
)
from app.namespaces import InvalidNamespaceError, check_labels
from app.resources import Resources
from app.schemas import Body

_BEARER = "bearer "

_HOST = r"(?:(?:[\w-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d*)?"
_LOCAL_HOST = re.compile(_HOST, re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rf"https?://{_HOST}", re.IGNORECASE)


class Guard(SecurityBase):
    """Admits callers whose key grants one of the guard's verbs in some namespace.

    A request counts toward the key's rate if `counted`.

    The key comes in `x-api-key` or as `Authorization: Bearer`. One dependency reads both headers:
    FastAPI's own pair costs every request two more.
    """

    def __init__(self, *verbs: Verb, counted: bool = True) -> None:
        self.verbs = verbs
        self.counted = counted
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": "x-api-key"})
        self.scheme_name = "ApiKey"

    async def __call__(self, request: Request) -> Access:
        """Return the access of an admitted request."""
        access: Access = request.state.access
        return access

    async def admit(self, request: Request) -> Access:
        """Check key and verb by the headers alone, and return the caller's access.

        Raises UnauthenticatedError, NotLocalError and ForbiddenError.
        """
        access = await _authenticated(request, counted=self.counted)
        if not any(access.may(verb) for verb in self.verbs):
            raise ForbiddenError(access.actor, " or ".join(self.verbs))
        request.state.access = access
        return access


async def check_local_without_keys(request: Request) -> None:
    """Raise NotLocalError for a request from elsewhere to a server that has no keys."""
    authenticator: Authenticator = request.state.authenticator
    if await authenticator.is_open():
        _check_local(request.headers)


async def find_access(request: Request) -> Access | None:
    """Return the caller's access; None without a valid key, if the server has keys.

    For routes that answer with less without a key; they do not count toward its rate.
    Raises NotLocalError.
    """
    authenticator: Authenticator = request.state.authenticator
    if _key(request) is None and not await authenticator.is_open():
        return None
    try:
        return await _authenticated(request, counted=False)
    except UnauthenticatedError:  # it is in the log
        return None


def last_known_access(request: Request) -> Access | None:
    """Return the access that was last read for a caller's key, for when the database is away."""
    authenticator: Authenticator = request.state.authenticator
    return authenticator.last_known_access(_key(request))


async def _authenticated(request: Request, *, counted: bool) -> Access:
    authenticator: Authenticator = request.state.authenticator
    try:
        access = await authenticator.authenticate(_key(request), counted=counted)
    except UnauthenticatedError as error:
        client = request.client.host if request.client else None
        authenticator.failures.note(error.reason, error.key_id, client)
        raise
    if access is ANONYMOUS:
        _check_local(request.headers)
    return access


def _check_local(headers: Mapping[str, str]) -> None:
    """Raise NotLocalError unless the request, and the page it comes from, name this machine."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _LOCAL_HOST.fullmatch(host):
        raise NotLocalError(f"at localhost, and not at {host!r}")
    if origin is not None and not _LOCAL_ORIGIN.fullmatch(origin):
        raise NotLocalError(f"to pages of this machine, and not of {origin!r}")


def _key(request: Request) -> str | None:
    if key := request.headers.get("x-api-key"):
        return key
    authorization = request.headers.get("authorization", "")
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    return authorization[len(_BEARER) :].strip() if is_bearer else None


ReadAccess = Annotated[Access, Depends(Guard(Verb.READ))]
WriteAccess = Annotated[Access, Depends(Guard(Verb.WRITE))]
DeleteAccess = Annotated[Access, Depends(Guard(Verb.DELETE))]
JobsAccess = Annotated[Access, Depends(Guard(Verb.JOBS))]
AdminAccess = Annotated[Access, Depends(Guard(Verb.ADMIN))]
MetricsAccess = Annotated[Access, Depends(Guard(Verb.METRICS, counted=False))]

ThreadAccess = Annotated[Access, Depends(Guard(Verb.JOBS, Verb.READ))]
"""For routes that `jobs` and `read` both open."""

StoreAccess = Annotated[Access, Depends(Guard(Verb.READ, Verb.WRITE, Verb.DELETE))]
"""For routes whose body determines which of the store's verbs they need."""


Handle = Callable[[Request], Awaitable[Response]]
Guarded = Callable[[Request], Coroutine[Any, Any, Response]]

GUARDED_ERRORS = (
    UnauthenticatedError,
    ForbiddenError,
    InvalidRequestError,
    DatabaseUnavailableError,
)
"""Errors with which any guarded route may answer."""


class GuardedRoute(APIRoute):
    """A route with one guard among its dependencies, and at most one body, which has limits.

    FastAPI alone would read and parse a body of any size before it runs dependencies.
    """

    @override
    def get_route_handler(self) -> Guarded:
        """Return the handler, behind the route's guard and body limits."""
        guard = guard_of(self.dependant)
        if guard is None:
            raise TypeError(f"{self.path} names no verb: give it a parameter such as ReadAccess")
        handle = super().get_route_handler()
        model = body_of(self.dependant)
        return _guarded(guard, handle if model is None else _reading(guard, model, handle))


def guard_of(dependant: Dependant) -> Guard | None:
    """Return the guard of a route, if it has one."""
    guards = {guard.verbs: guard for guard in _guards(dependant)}
    if len(guards) > 1:
        raise TypeError(f"{dependant.path} has several guards: {sorted(guards)}")
    return next(iter(guards.values()), None)


def body_of(dependant: Dependant) -> type[Body] | None:
    """Return the model of a route's body; None if it takes no body."""
    models = [field.field_info.annotation for field in dependant.body_params]
    if not models:
        return None
    if len(models) > 1 or not (isinstance(models[0], type) and issubclass(models[0], Body)):
        raise TypeError(f"{dependant.path} has another body than one subclass of Body: {models}")
    return models[0]


def _guards(dependant: Dependant) -> Iterator[Guard]:
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for dependency in dependant.dependencies:
        yield from _guards(dependency)


def _guarded(guard: Guard, handle: Handle) -> Guarded:
    async def admit_and_handle(request: Request) -> Response:
        await guard.admit(request)
        check_query_size(request)
        return await handle(request)

    return admit_and_handle


def _reading(guard: Guard, model: type[Body], handle: Handle) -> Handle:
    limit = model.body_limit

    async def read_and_handle(request: Request) -> Response:
        with MEMORY.share() as grow:
            max_bytes = limit.max_bytes(resources_of(request).settings)
            raw = await read_bytes(request, max_bytes, grow)
            body = await validated(request, raw)
            await give_way(raw)
            return await handle(ReadRequest(request, raw, body))

    async def validated(request: Request, raw: bytes) -> Body:
        parsed = await parse_body(request, raw, limit.values)
        _check_namespace(guard, request.state.access, model, parsed)
        await give_way(raw)
        if limit.in_thread:
            return await asyncio.to_thread(validate_body, model, parsed)
        return validate_body(model, parsed)

    return read_and_handle


def _check_namespace(guard: Guard, access: Access, model: type[Body], parsed: Any) -> None:
    """Raise ForbiddenError for a namespace without a grant, before doing any work for it.

    Templates are skipped, because they are not filled in yet; services check every namespace again.
    """
    labels = parsed.get(model.namespace_field) if isinstance(parsed, dict) else None
    if not isinstance(labels, list) or not _is_literal(labels):
        return
    if not any(access.allows(labels, verb) for verb in guard.verbs):
        raise ForbiddenError(access.actor, " or ".join(guard.verbs), labels)


def _is_literal(labels: list[Any]) -> bool:
    """Return whether labels are a namespace without variables; others fail validation later."""
    if not all(isinstance(label, str) and "{" not in label for label in labels):
        return False
    try:
        check_labels(labels)
    except InvalidNamespaceError:
        return False
    return True


def resources_of(request: Request) -> Resources:
    """Return the resources of the process that serves a request."""
    resources: Resources = request.state.resources
    return resources
