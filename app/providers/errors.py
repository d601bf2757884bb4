"""Errors of model providers: whether a retry may help, and which error an HTTP status means."""

import email.utils
import math
import time
from collections.abc import Mapping
from typing import ClassVar

from app.errors import OperatorError

_SETTINGS_STATUSES = {401, 402, 403, 404}
_PASSING_STATUSES = {408, 409, 425, 499}
_LONGEST_WAIT = 86_400.0
_SHORTEST_SECRET = 12
"""Shorter keys are placeholders for servers that need none, and may be part of any word."""


class ProviderError(OperatorError):
    """A provider failed to answer; `retryable` says whether waiting may help.

    `retry_after` is how many seconds the provider asked to wait, if it did; `words` are its own,
    and `status` is that of its response, if there was one.
    """

    retryable: ClassVar[bool] = False
    code: ClassVar[str] = "provider_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.words = ""
        self.status: int | None = None


class RateLimitedError(ProviderError):
    """The provider asks for fewer requests."""

    code = "provider_rate_limited"
    retryable = True


class UnavailableError(ProviderError):
    """The provider is unreachable, slow, or broken, or its answer is malformed."""

    code = "provider_unavailable"
    retryable = True


class TextFailedError(UnavailableError):
    """The model fails on this text, although it embeds others; it may pass later."""


class BadRequestError(ProviderError):
    """The provider refuses this input; another input may pass."""

    code = "provider_refused"


class RequestTooLongError(BadRequestError):
    """The input is longer than the provider accepts; a shorter one may pass.

    `excess` is by how many characters, if it is known.
    """

    code = "provider_input_too_long"

    def __init__(self, message: str, *, excess: int | None = None) -> None:
        super().__init__(message)
        self.excess = excess


class MisconfiguredError(ProviderError):
    """The provider refuses every input until the key, the model or the address is changed."""

    code = "provider_misconfigured"


def error_of_redirect(name: str, status: int, headers: Mapping[str, str]) -> ProviderError:
    """Return the error for a redirect."""
    location = headers.get("location", "nowhere")[:200]
    return MisconfiguredError(
        f"{name} redirects ({status}) to {location}; redirects are not followed, so set the "
        "base URL to the address that answers"
    )


def error_of_status(
    name: str, status: int, message: str, *, wait: float | None = None
) -> ProviderError:
    """Return the error for a response with `status`, worded for an operator."""
    message = message or "the reply is empty"
    if status == 429:
        return RateLimitedError(f"{name} asks for fewer requests: {message}", retry_after=wait)
    if status in _SETTINGS_STATUSES:
        return misconfigured(name, status, message)
    if status in _PASSING_STATUSES or status >= 500:
        return UnavailableError(f"{name} fails ({status}): {message}", retry_after=wait)
    return BadRequestError(f"{name} refuses the input ({status}): {message}")


def misconfigured(name: str, status: int, message: str) -> ProviderError:
    """Return the error for a wrong key, model, or address."""
    return MisconfiguredError(
        f"{name} refuses the request ({status}): {message}; "
        "check the API key, the model's name and the base URL"
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by the headers (a number or a date), a day at most."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return None if math.isnan(seconds) else min(max(0.0, seconds), _LONGEST_WAIT)


def _seconds_until(moment: str) -> float:
    """Return the seconds until an HTTP date; NaN if it is not one."""
    date = email.utils.parsedate_tz(moment)
    try:
        return math.nan if date is None else email.utils.mktime_tz(date) - time.time()
    except (ValueError, OverflowError):
        return math.nan


def without_key(message: str, key: str | None) -> str:
    """Return `message` without the key: some servers repeat the one they refuse."""
    if key is None or len(key) < _SHORTEST_SECRET:
        return message
    return message.replace(key, "[API key]")
