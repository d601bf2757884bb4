"""Routes that check the caller's key and verb before they read the body."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from typing_extensions import override

from app.auth.access import Access
from app.auth.dependencies import Guard
from app.auth.errors import ForbiddenError, UnauthenticatedError
from app.db.database import DatabaseUnavailableError
from app.dependencies import resources_of
from app.errors import InvalidRequestError
from app.http.bodies import MEMORY, ReadRequest, give_way, parse_body, read_bytes, validate_body
from app.http.query_strings import check_query_size
from app.namespaces import InvalidNamespaceError, check_labels
from app.schemas import Body

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
