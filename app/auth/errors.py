"""Errors of authentication, rights, and rates."""

import json
from collections.abc import Sequence

from app.errors import AppError


class UnauthenticatedError(AppError):
    """The request carries no valid key."""

    status = 401
    code = "unauthenticated"
    title = "Not authenticated"

    def __init__(self, detail: str, *, reason: str, key_id: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.key_id = key_id
        self.headers["WWW-Authenticate"] = "Bearer"


class ForbiddenError(AppError):
    """The key does not grant this."""

    status = 403
    code = "forbidden"
    title = "Not allowed"

    def __init__(self, actor: str, verb: str, labels: Sequence[str] | None = None) -> None:
        super().__init__(f"The key {actor} has no grant to {verb} {_advice(labels)}")


def _advice(labels: Sequence[str] | None) -> str:
    """Say where the grant is missing (None: everywhere), and what to do."""
    if labels is None:
        return "anywhere. Use a key with that grant."
    where = f"namespace {json.dumps(labels, ensure_ascii=False)}" if labels else "the whole store"
    return f"in {where}. Use a key with that grant, or narrow the request to a namespace it covers."


class TooManyRequestsError(AppError):
    """The key has reached one of its rates; nothing was done."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, actor: str, limit: int, unit: str, retry_after_seconds: int) -> None:
        units = unit if limit == 1 else f"{unit}s"
        super().__init__(
            f"The key {actor} has reached its limit of {limit:,} {units} a minute. "
            "Send the request again after the seconds in Retry-After."
        )
        self.headers["Retry-After"] = str(retry_after_seconds)


class NotLocalError(AppError):
    """A server without keys is called by another name than this machine's, or by a foreign page."""

    status = 403
    code = "not_local"
    title = "Not from this machine"

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"Without API keys, this server answers only {limit}: any page that a browser on this "
            "machine shows could use its memories. Use http://localhost, or create a key with "
            "`memoryd keys create NAME`."
        )
