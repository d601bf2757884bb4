"""The common part of OpenAI's Responses, Chat Completions, and embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import openai

from app.providers.errors import (
    BadRequestError,
    MisconfiguredError,
    ProviderError,
    UnavailableError,
    error_of_status,
    without_key,
)
from app.providers.http import MAX_REPLY_BYTES, limit_time, provider_client, request_deadline
from app.providers.llm import Completion, Request, TokenUsage, ToolCall, ToolResult
from app.providers.replies import ReplyReader, object_at, token_usage


def translate_error(name: str, error: openai.OpenAIError, key: str | None) -> ProviderError:
    """Return the provider error for `error`, without the key."""
    if not isinstance(error, openai.APIStatusError):
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        return UnavailableError(without_key(f"{name} cannot be reached: {error}{cause}", key))
    message = without_key(error.message, key)
    if error.code == "insufficient_quota":
        return MisconfiguredError(f"{name} has no credit left: {message}")
    return error_of_status(name, error.status_code, message, error.response.headers)


_CONNECT_SECONDS = 5
_FREE = (None, "auto", "none")

FILTERED = {"content_filter", "invalid_prompt", "bio_policy", "misalignment_policy_violation"}
"""Codes of errors by which a filter or the model refuses this request, but not others."""


class OpenAIModel(ABC):
    """Calls `model` at `base_url`, or at OpenAI itself without one.

    `timeout` is how many seconds the server may be silent, at each of 1 + `max_retries` attempts.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 120,
        max_retries: int = 2,
    ) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._api_key = api_key
        self._can_be_forced = True
        self._takes_temperature = True
        self._client = openai.AsyncOpenAI(
            # Self-hosted servers often need no key, but the SDK requires one.
            api_key=api_key or "none",
            base_url=base_url,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
            http_client=provider_client(MAX_REPLY_BYTES),
        )
        self._deadline = request_deadline(timeout, max_retries)
        self._reader = ReplyReader(self.name, "OpenAI's API", self._read, self._usage)

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; parameters that the model refuses are left out."""
        while True:
            arguments = self._arguments(request)
            try:
                body = await self._send(arguments)
                return self._refused() if body is None else await self._reader.read(body)
            except BadRequestError as error:
                if not self._concede(str(error), arguments):
                    raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    @abstractmethod
    def _body(self, request: Request) -> dict[str, Any]:
        """Return the body of the request except the model and the temperature."""

    @abstractmethod
    async def _post(self, arguments: dict[str, Any]) -> bytes:
        """Send it and return the raw answer."""

    @abstractmethod
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        """Return the usage that an answer states, even if the rest is malformed."""

    @abstractmethod
    def _read(self, answer: dict[str, Any]) -> Completion:
        """Return the answer as a completion; raises KeyError and the like if it is not one."""

    def _arguments(self, request: Request) -> dict[str, Any]:
        if request.is_forced and not self._can_be_forced:
            request = request.with_choice_in_words()
        arguments = {"model": self._model, **self._body(request)}
        if request.temperature is not None and self._takes_temperature:
            arguments["temperature"] = request.temperature
        return arguments

    async def _send(self, arguments: dict[str, Any]) -> bytes | None:
        """Return the answer; None if a filter refused the request."""
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        try:
            async with limit_time(self._deadline, self.name):
                return await self._post(arguments)
        except openai.BadRequestError as error:
            if error.code in FILTERED:
                return None
            raise translate_error(self.name, error, self._api_key) from None  # it may show the key
        except openai.OpenAIError as error:
            raise translate_error(self.name, error, self._api_key) from None

    def _concede(self, refusal: str, arguments: dict[str, Any]) -> bool:
        """Never again send the parameter that the model refuses; False if none is at fault."""
        if "temperature" in refusal and "temperature" in arguments:
            self._takes_temperature = False
        elif "tool_choice" in refusal and arguments.get("tool_choice") not in _FREE:
            self._can_be_forced = False
        else:
            return False
        return True

    def _refused(self) -> Completion:
        return Completion("", (), "refusal", TokenUsage(0, 0, 0, None), self._model)


def read_usage(
    model: str, usage: Mapping[str, Any], input_name: str, output_name: str
) -> TokenUsage:
    """Return an answer's usage by the names of its counts of input and output tokens."""
    details = object_at(usage, f"{input_name}_details")
    return token_usage(
        model,
        input_tokens=usage.get(input_name),
        output_tokens=usage.get(output_name),
        cached=details.get("cached_tokens"),
        written=details.get("cache_write_tokens"),
    )


def echo_arguments(call: ToolCall) -> str:
    """Return the arguments to send back: servers parse them, so invalid JSON is replaced."""
    return "{}" if call.arguments is None else call.raw


def result_text(result: ToolResult) -> str:
    """Return the result as text; OpenAI has no flag for errors."""
    return f"Error: {result.content}" if result.is_error else result.content
