"""Translates the errors of the `openai` package to this project's."""

import openai

from app.providers.errors import (
    MisconfiguredError,
    ProviderError,
    UnavailableError,
    error_of_status,
    without_key,
)


def translate_error(name: str, error: openai.OpenAIError, key: str | None) -> ProviderError:
    """Return the provider error for `error`, without the key."""
    if not isinstance(error, openai.APIStatusError):
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        return UnavailableError(without_key(f"{name} cannot be reached: {error}{cause}", key))
    message = without_key(error.message, key)
    if error.code == "insufficient_quota":
        return MisconfiguredError(f"{name} has no credit left: {message}")
    return error_of_status(name, error.status_code, message, error.response.headers)
