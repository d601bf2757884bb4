"""Authentication as a type: a route names the verb it needs in its signature (`ReadAccess`, …).

`app/auth/route.py` checks key and verb before it reads any of the body. A route whose router does
not use it finds no access here and fails.

Without keys, only requests that this machine's user means to make are answered. A page that a
browser on this machine shows may call any local server: under a name of its own that leads to
127.0.0.1 (DNS rebinding), or without reading the answer. It has no key, so with keys there is
nothing to check.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase

from app.auth.access import ANONYMOUS, Access, Verb
from app.auth.authenticator import Authenticator
from app.auth.errors import ForbiddenError, NotLocalError, UnauthenticatedError

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
