"""API keys, and problems as answers."""

from collections.abc import Iterable

import httpx2

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService


def grant(verbs: Iterable[Verb], *labels: str) -> Grant:
    """Return a grant of verbs below a namespace."""
    return Grant(labels, frozenset(verbs))


async def key_with(keys: KeyService, *grants: Grant, root: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the headers of a new key; without grants, it may do everything but read metrics."""
    token = await keys.create("test", root=root, grants=grants or ALL_GRANTED, expires_at=None)
    return {"x-api-key": str(token)}


def assert_problem(response: httpx2.Response, status: int, code: str) -> str:
    """Assert that an answer is a problem document; return its detail."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    return str(response.json()["detail"])


def actor_of(headers: dict[str, str]) -> str:
    """Return the name of a key in histories: the key without its secret."""
    return "_".join(headers["x-api-key"].split("_")[:2])
