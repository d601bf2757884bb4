"""Translates the errors of the `openai` package to this project's."""

import openai

from app.providers.error_replies import read_error, to_error
from app.providers.errors import (
    ProviderError,
    UnavailableError,
    error_of_redirect,
    without_key,
)


def translate_error(name: str, error: openai.OpenAIError, key: str | None) -> ProviderError:
    """Return the provider error for `error`, without the key."""
    if not isinstance(error, openai.APIStatusError):
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        return UnavailableError(without_key(f"{name} cannot be reached: {error}{cause}", key))
    response = error.response
    if 300 <= error.status_code < 400:
        return error_of_redirect(name, error.status_code, response.headers)
    return to_error(name, read_error(response.content, error.status_code, response.headers), key)
