"""The headers `Prefer` and `Idempotency-Key`."""

import hashlib
import re

from fastapi import Request

from app.db.idempotency import IdempotentRequest
from app.errors import InvalidRequestError
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


_PATTERN = r"[\x21-\x7e]{1,200}"

IDEMPOTENCY_PARAMETER = header_parameter(
    "Idempotency-Key",
    f"^{_PATTERN}$",
    "The same key and request within 24 hours get the first answer again.",
)
"""The OpenAPI parameter."""


async def read_idempotency(request: Request, root: str, actor: str) -> IdempotentRequest:
    """Read the header, and fingerprint route and body; raises InvalidRequestError.

    `root` and `actor` are those of the API key.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(_PATTERN, key):
        raise InvalidRequestError(
            "The header Idempotency-Key takes 1 to 200 visible ASCII characters.",
            field="Idempotency-Key",
        )
    if key is None:
        return IdempotentRequest(root, actor, None, "")
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    fingerprint.update(await request.body())
    return IdempotentRequest(root, actor, key, fingerprint.hexdigest())
