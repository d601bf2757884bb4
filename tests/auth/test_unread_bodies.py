"""A request that can be refused by its headers is refused with its body unread."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
from fastapi.routing import iter_route_contexts

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.dependencies import GuardedRoute, guard_of
from app.auth.service import KeyService
from app.config import Settings
from app.main import create_app
from tests.support.routes import HIDDEN, REQUESTS

ROUTES: dict[str, tuple[Any, ...]] = {**REQUESTS, **HIDDEN, "mcp": ("POST", "/mcp")}

VERBS = {
    route.operation_id: guard.verbs
    for route in iter_route_contexts(create_app(Settings()).routes)
    if isinstance(route.original_route, GuardedRoute) and (guard := guard_of(route.dependant))
}


async def key_with(keys: KeyService, *grants: Grant) -> str:
    return str(await keys.create("test", root=(), grants=grants, expires_at=None))


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
    await key_with(keys, *ALL_GRANTED)
    for operation in VERBS:
        assert (await refusal(client, operation, {})).status_code == 401, operation


async def test_without_any_of_the_verbs_of_the_route(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    for verbs in set(VERBS.values()):
        key = await key_with(keys, Grant((), frozenset(Verb) - set(verbs)))
        for operation in (name for name, needed in VERBS.items() if needed == verbs):
            response = await refusal(client, operation, {"x-api-key": key})
            assert response.status_code == 403, operation
            assert f"no grant to {' or '.join(verbs)} anywhere" in response.json()["detail"]


async def test_mcp_without_a_key_or_a_grant(client: httpx2.AsyncClient, keys: KeyService) -> None:
    none = await key_with(keys, Grant((), frozenset()))
    assert (await refusal(client, "mcp", {})).status_code == 401
    assert (await refusal(client, "mcp", {"x-api-key": none})).status_code == 403
