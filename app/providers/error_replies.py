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
    misconfigured,
    retry_after,
    without_key,
)

_MAX_WORDS = 300
_MAX_READ = 20_000
"""Characters of an error that are read; some servers answer with a whole page."""

_TAGS = re.compile(r"<[^<>]{0,2000}>")
_HTML = re.compile(r"\s*<(!doctype|[a-z]+[\s>])", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,500})", re.IGNORECASE)
_DELAY = re.compile(
    r'"retryDelay"\s*:\s*"(?P<exact>\d{1,9}(?:\.\d{1,9})?)s"'
    r"|(?:try again|retry)\s+(?:in|after)\s+(?:(?P<minutes>\d{1,4})m\s?)?"
    r"(?P<number>\d{1,9}(?:\.\d{1,9})?)\s?(?P<unit>ms|s)",
    re.IGNORECASE,
)

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
    "server_error": 500,
}
"""Statuses of the codes and types that errors inside a successful response have."""

_UNKNOWN_STATUS = 502

_WRAPS = ("error", "errors", "detail", "base_resp")
_MOST_WRAPS = 5
_MESSAGES = ("message", "detail", "msg", "error_description", "status_msg", "title")
_ANSWERS = ("choices", "content", "output", "data", "embeddings", "embedding")
"""Members of replies that are no errors."""

_TOO_LONG = re.compile(
    r"context[ _-]?(length|size|window|limit)|context the overflows|exceed_context|\bn_ctx\b"
    r"|\btoo long\b|string_above_max_length|longer than|max_?length|input length"
    r"|too large (to process|for a model)|request (entity |size )?(is )?too large|request_too_large"
    r"|physical batch|memory slot for batch|kv cache is full|kv (cache )?size"
    r"|too (big|many tokens) (compared to|in)"
    r"|too many (total )?(input |prompt )?tokens|token limit|model token"
    r"|tokens? per (request|submit)"
    r"|reduce (the|your|its) (length|size|input|prompt|message)|must be reduced"
    r"|(input|prompt|message|request|text)s?( token)?s?( count| length| size)?\b[^.]{0,60}\bexceed"
    r"|exceed\w* [^.]{0,40}(length|tokens)\b|cannot exceed [^.]{0,40}\btokens?\b"
    r"|max(imum)? (prompt|input|context|sequence|model|number of (input )?tokens)"
    r"|(less|fewer|more) than [\d,]+ tokens|range of input|\btokens\W{1,4}\+",
    re.IGNORECASE,
)
_OF_TIME = re.compile(
    r"(took|tak(e|es|ing|en)|wait(ed|ing)|runn?ing|been)( \w+)? too long"
    r"|too long to (process|respond|answer|complete|generate|load|start)"
    r"|(\w+ )?rate[ _-]?limit\w*( \w+)?( exceeded)?|requests? per \w+( \w+)?",
    re.IGNORECASE,
)
"""Words about time and rates that are like those about lengths."""

_LONG_STRING = re.compile(r"([\w.\[\]-]{1,200})['\"`]?\s*:\s*string (is )?too long", re.IGNORECASE)
_TEXTS = {"content", "input", "text", "prompt", "instructions", "system", "output", "arguments"}
"""Members of a request that hold what users wrote; others are too long in every request."""

_OF_SCHEMA = re.compile(
    r"\btools\W\d+\W|function_declarations|\.parameters\b|\bjson[ _]?schema\b", re.IGNORECASE
)
"""Places of tools' schemas, whose keywords are like words about lengths."""

_OUTPUT = re.compile(
    r"max_?(completion_|output_|new_)?tokens|maxOutputTokens|output tokens|completion tokens",
    re.IGNORECASE,
)
_INPUT = re.compile(r"\b(inputs?|prompts?|messages?|context|requests?|texts?)\b", re.IGNORECASE)
_PATIENCE_HELPS = re.compile(r"try again|please wait|retry", re.IGNORECASE)
_SHORTER_HELPS = re.compile(r"reduce|too large", re.IGNORECASE)
_THROTTLED = re.compile(
    r"throttl|rate[ _-]?limit|too many requests|please wait|频繁|限流|稍后", re.IGNORECASE
)
_SETTINGS_STATUSES = {401, 402, 403, 404}
_BAD_KEY = re.compile(
    r"api[ _-]?key.{0,20}(not valid|not found|invalid|missing|expired)"
    r"|(invalid|incorrect|no|wrong|missing) (x-)?(api[ _-]?key|auth|credentials|token\b)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"(model|deployment)\b\W{0,3}\S{0,200}\W{1,3}(was |is |could )?(not (be )?found|not exist"
    r"|does not exist|doesn't exist)|(invalid|unknown) model\b|no models? (is |are )?loaded"
    r"|unexpected endpoint",
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
        return _says_too_long(" ".join([self.words, *self.codes])) and not self.is_throttled

    @property
    def is_throttled(self) -> bool:
        """True if the same request may pass later, because others take too much at the moment."""
        if self.status in {401, 402, 404}:
            return False
        passes = _PATIENCE_HELPS.search(self.words) and not _SHORTER_HELPS.search(self.words)
        found = _THROTTLED.search(" ".join([self.words, *self.codes]))
        is_final = self.status == 413 or (_says_too_long(self.words) and not passes)
        return (self.status == 429 or found is not None) and not is_final

    @property
    def is_about_settings(self) -> bool:
        """True if the key or the model's name is wrong, whatever the status."""
        is_usual = self.status in {400, 422, 500, _UNKNOWN_STATUS}
        words = " ".join([self.words, *self.codes])
        return is_usual and bool(_BAD_KEY.search(words) or _NO_MODEL.search(words))


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
    if not isinstance(first, dict) or any(first.get(name) for name in _ANSWERS):
        return None
    if "output" in first:  # whose reader knows what a failure means
        return None
    is_error = first.get("error") or "error" in (first.get("type"), first.get("object"))
    is_answer = any(name in first for name in _ANSWERS)
    return read_failure(first) if is_error or (not is_answer and _words(_members(first))) else None


def read_failure(answer: Any) -> ErrorReply:
    """Read an error that has no status of its own."""
    return _reply_of(answer, str(answer)[:_MAX_READ], _UNKNOWN_STATUS, None, is_stated=False)


def to_error(name: str, reply: ErrorReply, key: str | None) -> ProviderError:
    """Return the error to raise, worded for an operator and without the key."""
    words = without_key(reply.words, key)
    error = _worded_error(name, reply, words)
    error.words, error.status = words, reply.status
    return error


def _worded_error(name: str, reply: ErrorReply, words: str) -> ProviderError:
    if "insufficient_quota" in reply.codes:
        return MisconfiguredError(f"{name} has no credit left: {words}")
    if reply.is_too_long:
        return RequestTooLongError(f"{name} refuses the input ({reply.status}): {words}")
    if reply.is_throttled:
        return error_of_status(name, 429, words, wait=reply.retry_after)
    if reply.is_about_settings:
        return misconfigured(name, reply.status, words)
    return error_of_status(name, reply.status, words, wait=reply.retry_after)


def _says_too_long(words: str) -> bool:
    """Return whether words say that the input is too long, and not a wait, a name, or a limit."""
    if found := _LONG_STRING.search(words):
        names = re.findall(r"[a-z_]+", found[1].lower())
        return not names or names[-1] in _TEXTS or names == ["messages"]
    if _OF_SCHEMA.search(words) or (_OUTPUT.search(words) and not _INPUT.search(words)):
        return False
    return _TOO_LONG.search(_OF_TIME.sub("", words)) is not None


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
        wait = _seconds(delay)
    words = _words(error) or _one_line(text)
    reply = ErrorReply(status, words, codes, wait)
    return reply if is_stated or status != _UNKNOWN_STATUS else _with_likely_status(reply)


def _members(parsed: Any) -> dict[str, Any]:
    """Return the members of an error, however it is wrapped."""
    for _ in range(_MOST_WRAPS):
        if isinstance(parsed, list):
            parsed = parsed[0] if parsed else {}
        if not isinstance(parsed, dict):
            break
        inner = next((parsed[name] for name in _WRAPS if parsed.get(name)), None)
        if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
            inner = _parsed(inner) or {**parsed, "message": inner, "error": None, "detail": None}
        elif isinstance(inner, str):
            return {**parsed, "message": inner}
        if inner is None:
            return _with_message(parsed)
        parsed = inner
    return {"message": parsed} if isinstance(parsed, str) else {}


def _with_message(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error; one that a gateway hands on as the text of its own is unwrapped."""
    message = error.get("message")
    if isinstance(message, str) and (begin := message.find("{")) >= 0:
        inner = _members(_parsed(message[begin:]))
        return {**error, **inner} if _words(inner) else error
    return error


def _parsed(text: str) -> Any:
    try:
        return parse_json(text[:_MAX_READ].encode(errors="replace"))
    except ValueError:
        return None


def _seconds(delay: re.Match[str]) -> float:
    if delay["exact"]:
        return float(delay["exact"])
    seconds = float(delay["number"]) / (1000 if delay["unit"].lower() == "ms" else 1)
    return seconds + 60 * int(delay["minutes"] or 0)


def _words(error: Mapping[str, Any]) -> str:
    found = (error.get(name) for name in _MESSAGES)
    message = next((text for text in found if isinstance(text, str) and text), "")
    details = error.get("metadata")
    raw = details.get("raw") if isinstance(details, dict) else None
    place = error.get("param") or error.get("loc")
    if isinstance(place, list):
        place = ".".join(str(part) for part in place[:10])
    if isinstance(place, str) and place and place not in message:
        message = f"{place}: {message}"
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
    status = 400 if _says_too_long(reply.words) else reply.status
    return ErrorReply(status, reply.words, reply.codes, reply.retry_after)
