"""Error replies of providers, in any of their shapes: the provider's words, and the error meant."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.json_values import parse_json
from app.providers.errors import (
    MisconfiguredError,
    ProviderError,
    RequestTooLongError,
    error_of_status,
    retry_after,
    without_key,
)

_MAX_WORDS = 300
_MAX_READ = 20_000
"""Characters of an error that are read; some servers answer with a whole page."""

_TAGS = re.compile(r"<[^<>]{0,2000}>")
_HTML = re.compile(r"\s*<(!doctype|[a-z]+[\s>])", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,500})", re.IGNORECASE)
_DELAY = re.compile(r'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')

_STATUS_OF_CODE = {
    "RESOURCE_EXHAUSTED": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "UNAUTHENTICATED": 401,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "PERMISSION_DENIED": 403,
    "permission_error": 403,
    "NOT_FOUND": 404,
    "not_found_error": 404,
    "model_not_found": 404,
    "INVALID_ARGUMENT": 400,
    "invalid_request_error": 400,
    "request_too_large": 413,
    "overloaded_error": 529,
    "api_error": 500,
}
"""Statuses of the codes and types that errors inside a successful response have."""

_UNKNOWN_STATUS = 502

_TOO_LONG = re.compile(
    r"context[ _-]?(length|size|window)|context the overflows|exceed_context|too long"
    r"|request[ _]too[ _]large|too many (input |prompt )?tokens|reduce the length"
    r"|(input|prompt|message|request)s?( token)?s?( count| length)?\b[^.]{0,60}\bexceed"
    r"|maximum (prompt|input|context|sequence)|token limit exceeded|must be reduced"
    r"|input length|longer than the (model|maximum|context)|string_above_max_length",
    re.IGNORECASE,
)
_PATIENCE_HELPS = re.compile(r"try again|please wait|retry", re.IGNORECASE)
_SETTINGS_STATUSES = {401, 402, 403, 404}
_BAD_KEY = re.compile(
    r"api[ _-]?key.{0,20}(not valid|invalid|missing)|(invalid|incorrect) api[ _-]?key",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error by a provider: its status, its words in one line, and the codes that it names."""

    status: int
    words: str
    codes: tuple[str, ...] = ()
    retry_after: float | None = None

    @property
    def is_too_long(self) -> bool:
        """True if a shorter request may pass."""
        if self.status in _SETTINGS_STATUSES:
            return False
        if self.status == 413:
            return True
        found = _TOO_LONG.search(" ".join([self.words, *self.codes])) is not None
        return found and not (self.status == 429 and _PATIENCE_HELPS.search(self.words))


def read_error(body: bytes, status: int, headers: Mapping[str, str]) -> ErrorReply:
    """Read the body of a response with an error status."""
    text = body[: 4 * _MAX_READ].decode(errors="replace")
    try:
        parsed: Any = parse_json(body)
    except ValueError:
        parsed = text
    return _reply_of(parsed, text, status, retry_after(headers))


def find_error(answer: Any) -> ErrorReply | None:
    """Return the error in a reply that was sent as a success; None if there is none."""
    first = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(first, dict) or "output" in first:
        return None
    if not (first.get("error") or first.get("type") == "error") or first.get("choices"):
        return None
    text = str(first)[:_MAX_READ]
    return _reply_of(first, text, _UNKNOWN_STATUS, None, is_stated=False)


def to_error(name: str, reply: ErrorReply, key: str | None) -> ProviderError:
    """Return the error to raise, worded for an operator and without the key."""
    words = without_key(reply.words, key)
    if reply.is_too_long:
        return RequestTooLongError(f"{name} refuses the input ({reply.status}): {words}")
    if reply.status == 400 and _BAD_KEY.search(words):  # Gemini's status for it
        return error_of_status(name, 401, words)
    if "insufficient_quota" in reply.codes:
        return MisconfiguredError(f"{name} has no credit left: {words}")
    return error_of_status(name, reply.status, words, wait=reply.retry_after)


def describe_body(body: bytes) -> str:
    """Return the text of a body of any kind in one short line: that of a page is its title."""
    return _one_line(body[: 4 * _MAX_READ].decode(errors="replace"))


def _reply_of(
    parsed: Any, text: str, status: int, wait: float | None, *, is_stated: bool = True
) -> ErrorReply:
    error = _members(parsed)
    codes = tuple(
        str(code)[:100]
        for name in ("code", "type", "status", "param")
        if isinstance(code := error.get(name), str | int) and not isinstance(code, bool)
    )
    if not is_stated:
        status = next(filter(None, map(_status_of, codes)), status)
    if wait is None and (delay := _DELAY.search(text[:_MAX_READ])):
        wait = float(delay[1])
    words = _words(error) or _one_line(text)
    reply = ErrorReply(status, words, codes, wait)
    return reply if is_stated or status != _UNKNOWN_STATUS else _with_likely_status(reply)


def _members(parsed: Any) -> dict[str, Any]:
    """Return the members of an error, however it is wrapped."""
    if isinstance(parsed, list):
        parsed = parsed[0] if parsed else {}
    if not isinstance(parsed, dict):
        return {"message": parsed} if isinstance(parsed, str) else {}
    inner = parsed.get("error")
    if isinstance(inner, dict):
        return inner
    return {**parsed, "message": inner} if isinstance(inner, str) else parsed


def _words(error: Mapping[str, Any]) -> str:
    found = (error.get(name) for name in ("message", "detail", "msg", "error_description"))
    message = next((text for text in found if isinstance(text, str) and text), "")
    details = error.get("metadata")
    raw = details.get("raw") if isinstance(details, dict) else None
    param = error.get("param")
    if isinstance(param, str) and param and param not in message:
        message = f"{param}: {message}"
    return _one_line(f"{message}: {raw}" if isinstance(raw, str) and raw else message)


def _one_line(text: str) -> str:
    text = text[:_MAX_READ]
    if _HTML.match(text):
        title = _TITLE.search(text)
        text = title[1] if title else _TAGS.sub(" ", text)
    return " ".join(text.split())[:_MAX_WORDS]


def _status_of(code: str) -> int | None:
    if code.isascii() and code.isdecimal() and 400 <= int(code) < 600:
        return int(code)
    return _STATUS_OF_CODE.get(code)


def _with_likely_status(reply: ErrorReply) -> ErrorReply:
    is_too_long = _TOO_LONG.search(reply.words) is not None
    status = 400 if is_too_long else reply.status
    return ErrorReply(status, reply.words, reply.codes, reply.retry_after)
