"""Requests that may be sent twice: the first answer is given again (Idempotency-Key).

The API key that sent the request is answered again before any other check, because its grants
never change. Another key of the same root gets that answer only after its own grants are checked.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Self

from fastapi import Request

from app.auth.access import Access
from app.db.database import Connection, Database
from app.errors import InvalidRequestError
from app.http.openapi.parameters import header_parameter
from app.jobs import repository
from app.jobs.errors import IdempotencyKeyReusedError

_PATTERN = r"[\x21-\x7e]{1,200}"

PARAMETER = header_parameter(
    "Idempotency-Key",
    f"^{_PATTERN}$",
    "The same key and request within 24 hours get the first answer again.",
)
"""The OpenAPI parameter."""


@dataclass(frozen=True, slots=True)
class Idempotent:
    """What tells a request from others; `key` is None where the client sent none."""

    key: str | None
    fingerprint: str

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Read the header, and fingerprint route and body; raises InvalidRequestError."""
        key = request.headers.get("idempotency-key")
        if key is not None and not re.fullmatch(_PATTERN, key):
            raise InvalidRequestError(
                "The header Idempotency-Key takes 1 to 200 visible ASCII characters.",
                field="Idempotency-Key",
            )
        if key is None:
            return cls(None, "")
        fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
        fingerprint.update(await request.body())
        return cls(key, fingerprint.hexdigest())

    async def known(self, database: Database, access: Access) -> Any:
        """Return what the same API key was answered before, or None; it promises nothing.

        So a repeated request need not be prepared again: what that needs may be gone.
        """
        if self.key is None:
            return None
        async with database.connection(access.root) as connection:
            answer = await repository.find_own_answer(
                connection, access, self.key, self.fingerprint
            )
        return None if answer is None else json.loads(answer)

    async def replayed(self, connection: Connection, access: Access) -> Any:
        """Return what was answered before, or None; call it in the creating transaction.

        The caller's grants for the request must have been checked before. Raises
        IdempotencyKeyReusedError.
        """
        if self.key is None:
            return None
        answered = await repository.answer_before(connection, access, self.key, self.fingerprint)
        if answered is None:
            raise IdempotencyKeyReusedError(self.key)
        return json.loads(answered)

    async def remember(self, connection: Connection, access: Access, answer: Any) -> None:
        """Keep an answer, in the transaction that created what it tells of."""
        if self.key is not None:
            text = json.dumps(answer, ensure_ascii=False)
            await repository.remember_answer(connection, access, self.key, text)
