"""Authentication as a type: a route that takes `AccessDep` cannot forget it."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase

from app.auth.access import OPEN, Access
from app.auth.local import check_local
from app.auth.service import Authenticator

_BEARER = "bearer "


class KeyInHeader(SecurityBase):
    """Reads the key of a request, from `x-api-key` or `Authorization: Bearer`, and checks it.

    One dependency for both headers: FastAPI's own pair costs every request two more.
    """

    def __init__(self) -> None:
        self.model = APIKey.model_validate({"in": APIKeyIn.header, "name": "x-api-key"})
        self.scheme_name = "ApiKey"

    async def __call__(self, request: Request) -> Access:
        """Return what the caller may see and do; raises UnauthenticatedError, NotLocalError."""
        authenticator: Authenticator = request.state.authenticator
        access = await authenticator.authenticate(_key(request))
        if access is OPEN:
            check_local(request.headers)
        return access


def _key(request: Request) -> str | None:
    if key := request.headers.get("x-api-key"):
        return key
    authorization = request.headers.get("authorization", "")
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    return authorization[len(_BEARER) :].strip() if is_bearer else None


get_access = KeyInHeader()

AccessDep = Annotated[Access, Depends(get_access)]
