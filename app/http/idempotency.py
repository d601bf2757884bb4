"""The header Idempotency-Key."""

import hashlib
import re

from fastapi import Request

from app.db.idempotency import IdempotentRequest
from app.errors import InvalidRequestError
from app.http.openapi.parameters import header_parameter

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
