"""The header `Prefer: wait=N` (RFC 7240): how long a client prefers to wait for a job."""

import re

from fastapi import Request

from app.http.bodies import may_be_held
from app.http.openapi.parameters import header_parameter

MAX_WAIT_SECONDS = 120

PATTERN = r"(^|.*[,;\s])wait=\d+.*$"
"""Matches a header with `wait=N`, in the OpenAPI document."""

PREFER_PARAMETER = header_parameter(
    "Prefer",
    PATTERN,
    f"wait=N: answer when the job is done, within N seconds (at most {MAX_WAIT_SECONDS}).",
)
"""The OpenAPI parameter of routes that answer with a job."""

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*("?)(\d+)\1(?:$|[,;\s])')


def wait_seconds(request: Request, *, default: int = 0) -> int:
    """Return how long the client prefers to wait, or `default` if it does not say.

    No request waits with a large body while memory for those is scarce.
    """
    if not may_be_held(request):
        return 0
    found = _WAIT.search(", ".join(request.headers.getlist("prefer")).lower())
    return min(int(found[2][:9]), MAX_WAIT_SECONDS) if found else default
