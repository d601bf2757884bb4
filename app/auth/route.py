"""Routes that check the caller's key and verb before they read the body."""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from typing_extensions import override

from app.auth.dependencies import Guard


class GuardedRoute(APIRoute):
    """A route with one guard among its dependencies; FastAPI alone would read the body first."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, behind the route's guard."""
        guard = guard_of(self.dependant)
        if guard is None:
            raise TypeError(f"{self.path} names no verb: give it a parameter such as ReadAccess")
        return _guarded(guard, super().get_route_handler())


def guard_of(dependant: Dependant) -> Guard | None:
    """Return the guard that a route depends on."""
    guards = {guard.verbs: guard for guard in _guards(dependant)}
    if len(guards) > 1:
        raise TypeError(f"{dependant.path} has several guards: {sorted(guards)}")
    return next(iter(guards.values()), None)


def _guards(dependant: Dependant) -> Iterator[Guard]:
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for dependency in dependant.dependencies:
        yield from _guards(dependency)


def _guarded(
    guard: Guard, handle: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def admit_and_handle(request: Request) -> Response:
        await guard.admit(request)
        return await handle(request)

    return admit_and_handle
