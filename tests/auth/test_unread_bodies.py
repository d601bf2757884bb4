"""Requests that their headers disqualify are refused before their bodies are read."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
from fastapi.routing import iter_route_contexts

from app.auth.access import Verb
from app.auth.dependencies import GuardedRoute, guard_of
from app.auth.service import KeyService
from app.config import Settings
from app.main import create_app
from tests.support.keys import assert_problem, grant, key_with
from tests.support.routes import HIDDEN, REQUESTS

ROUTES: dict[str, tuple[Any, ...]] = {**REQUESTS, **HIDDEN, "mcp": ("POST", "/mcp")}

VERBS = {
    route.operation_id: guard.verbs
    for route in iter_route_contexts(create_app(Settings()).routes)
    if isinstance(route.original_route, GuardedRoute) and (guard := guard_of(route.dependant))
}


async def refusal(client: httpx2.AsyncClient, operation: str, headers: dict[str, str]) -> Any:
    """Send a request whose body must not be read, and return the response."""
    method, path, *_ = ROUTES[operation]

    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{}"

    headers = {**headers, "content-type": "application/json"}
    response = await client.request(method, path, headers=headers, content=body())
    assert not read, operation
    return response


def test_every_guarded_route_is_tried() -> None:
    assert VERBS.keys() == ROUTES.keys() - {"mcp"}


async def test_without_a_key(client: httpx2.AsyncClient, keys: KeyService) -> None:
    await key_with(keys)
    for operation in (*VERBS, "mcp"):
        response = await refusal(client, operation, {})
        assert_problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == "Bearer"


async def test_without_any_of_the_verbs_of_the_route(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    for verbs in set(VERBS.values()):
        headers = await key_with(keys, grant(set(Verb) - set(verbs)))
        for operation in (name for name, needed in VERBS.items() if needed == verbs):
            detail = assert_problem(await refusal(client, operation, headers), 403, "forbidden")
            assert f"no grant to {' or '.join(verbs)} anywhere" in detail, operation


async def test_mcp_without_a_grant(client: httpx2.AsyncClient, keys: KeyService) -> None:
    assert_problem(await refusal(client, "mcp", await key_with(keys, grant(()))), 403, "forbidden")
