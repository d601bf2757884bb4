"""OpenAI's SDK: the client of a provider, and its errors translated to this project's."""

import httpx2
import openai

from app.providers.error_replies import read_error, to_error
from app.providers.errors import (
    ProviderError,
    UnavailableError,
    error_of_redirect,
    without_key,
)
from app.providers.http import provider_client
from app.providers.provider import Provider


def open_client(
    provider: Provider, *, timeout: float | httpx2.Timeout, max_retries: int, max_bytes: int
) -> openai.AsyncOpenAI:
    """Return a client, which takes nothing but OpenAI's organization from the environment."""
    return openai.AsyncOpenAI(
        api_key=provider.bearer,
        base_url=provider.url,
        timeout=timeout,
        max_retries=max_retries,
        default_headers=provider.own_headers,
        default_query=dict(provider.query),
        http_client=provider_client(max_bytes, sends_bearer=provider.api_key_header is None),
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
