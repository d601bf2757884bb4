"""Headers: conditional requests (RFC 9110, section 13), `Prefer`, and `Idempotency-Key`."""

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol, Self

from fastapi import Request, Response

from app.db.idempotency import IdempotentRequest
from app.errors import AppError, InvalidRequestError
from app.http.messages import may_be_held
from app.json_values import JsonObject

_ANY = "*"
# Empty elements are ignored, as RFC 9110 (5.6.1) asks.
_TAGS = re.compile(r'[\s,]*(W/)?"[^"]*"(\s*,[\s,]*(W/)?"[^"]*")*[\s,]*')
_TAGS_PATTERN = rf"^({_TAGS.pattern}|\s*\*\s*)$"
_TAG = re.compile(r'(W/)?"([^"]*)"')


def header_parameter(name: str, pattern: str, description: str) -> JsonObject:
    """Return the OpenAPI parameter of an optional header."""
    return {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": pattern},
        "description": description,
    }


PRECONDITION_PARAMETERS = [
    header_parameter("If-Match", _TAGS_PATTERN, "Go ahead only at this ETag."),
    header_parameter("If-None-Match", _TAGS_PATTERN, "`*`: go ahead only if there is no item yet."),
]
"""The OpenAPI parameters that `Precondition.of` reads."""


class PreconditionFailedError(AppError):
    """If-Match or If-None-Match does not hold."""

    status = 412
    code = "precondition_failed"
    title = "Precondition failed"

    def __init__(self, resource: str, version: int | None, *, counter: str = "version") -> None:
        """`resource` is such as `the item 'a'`; `counter` names the number in its ETag."""
        detail = (
            f"{resource} does not exist. To create it, send no If-Match."
            if version is None
            else f"{resource} exists, at {counter} {version}. "
            "Read it again and repeat the request with its ETag."
        )
        super().__init__(f"Nothing was changed: {detail}", **{counter: version})


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


def not_modified(version: int) -> Response:
    """Return the answer to a reader who already has this version."""
    return Response(status_code=304, headers={"ETag": etag(version)})


class Headers(Protocol):
    """The headers of a request."""

    def getlist(self, key: str) -> list[str]:
        """Return the values of all lines of a header."""
        ...


@dataclass(frozen=True, slots=True)
class Precondition:
    """The condition under which a request goes ahead: on the version of the resource it names."""

    if_match: str | None = None
    if_none_match: str | None = None

    @classmethod
    def of(cls, headers: Headers) -> Self:
        """Return the precondition in a request's headers; raises InvalidRequestError."""
        return cls.parse(_field(headers, "if-match"), _field(headers, "if-none-match"))

    @classmethod
    def parse(cls, if_match: str | None, if_none_match: str | None) -> Self:
        """Check the headers' form; raises InvalidRequestError naming the header."""
        for name, header in (("If-Match", if_match), ("If-None-Match", if_none_match)):
            if header is not None and header.strip() != _ANY and not _TAGS.fullmatch(header):
                raise InvalidRequestError(
                    f'{name} is {header!r}; send * or entity tags in double quotes, as in "3".',
                    field=name,
                )
        return cls(if_match, if_none_match)

    @classmethod
    def at(cls, version: int | None) -> Self:
        """Return the precondition that something is at a version; None: that it is absent."""
        return cls(if_none_match=_ANY) if version is None else cls(if_match=etag(version))

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def is_current(self, version: int | None) -> bool:
        """Return whether a reader already has `version`, so that the answer is 304.

        False if If-Match fails, which is an error, or if the reader lacks this version.
        """
        return (
            version is not None
            and not self.holds(version)
            and Precondition(if_match=self.if_match).holds(version)
        )

    def holds(self, version: int | None) -> bool:
        """Return whether it holds at `version` (None: what is asked for does not exist)."""
        if self.if_match is not None and not _matches(self.if_match, version, weak=False):
            return False
        return self.if_none_match is None or not _matches(self.if_none_match, version, weak=True)


UNCONDITIONAL = Precondition()
ABSENT = Precondition(if_none_match=_ANY)
PRESENT = Precondition(if_match=_ANY)


def _field(headers: Headers, name: str) -> str | None:
    """Return a header; several lines of it are one list (RFC 9110, 5.3)."""
    lines = headers.getlist(name)
    return ", ".join(lines) if lines else None


def _matches(header: str, version: int | None, *, weak: bool) -> bool:
    """Compare with a header's tags; If-Match compares strongly, If-None-Match weakly."""
    if version is None:
        return False
    if header.strip() == _ANY:
        return True
    return any(
        tag == str(version) and (weak or not is_weak) for is_weak, tag in _TAG.findall(header)
    )


MAX_WAIT_SECONDS = 120

PREFER_PATTERN = r"(^|.*[,;\s])wait=\d+.*$"
"""Matches a header with `wait=N`, in the OpenAPI document."""

PREFER_PARAMETER = header_parameter(
    "Prefer",
    PREFER_PATTERN,
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


_KEY_PATTERN = r"[\x21-\x7e]{1,200}"

IDEMPOTENCY_PARAMETER = header_parameter(
    "Idempotency-Key",
    f"^{_KEY_PATTERN}$",
    "The same key and request within 24 hours get the first answer again.",
)
"""The OpenAPI parameter."""


async def read_idempotency(request: Request, root: str, actor: str) -> IdempotentRequest:
    """Read the header, and fingerprint route and body; raises InvalidRequestError.

    `root` and `actor` are those of the API key.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(_KEY_PATTERN, key):
        raise InvalidRequestError(
            "The header Idempotency-Key takes 1 to 200 visible ASCII characters.",
            field="Idempotency-Key",
        )
    if key is None:
        return IdempotentRequest(root, actor, None, "")
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    fingerprint.update(await request.body())
    return IdempotentRequest(root, actor, key, fingerprint.hexdigest())
