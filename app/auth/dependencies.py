"""Authentication as a type: a route that takes `AccessDep` cannot forget it."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from app.auth.access import Access
from app.auth.service import Authenticator

_API_KEY = APIKeyHeader(name="x-api-key", auto_error=False, scheme_name="ApiKey")
_BEARER = HTTPBearer(auto_error=False, scheme_name="Bearer")


async def get_access(
    request: Request,
    api_key: Annotated[str | None, Depends(_API_KEY)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Access:
    """Return what the caller may see and do; raises UnauthenticatedError."""
    authenticator: Authenticator = request.state.authenticator
    return await authenticator.authenticate(api_key or (bearer.credentials if bearer else None))


AccessDep = Annotated[Access, Depends(get_access)]
