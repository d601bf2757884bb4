"""What OpenAI's Responses and Chat Completions have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import openai

from app.providers.errors import BadRequestError, UnavailableError
from app.providers.http import MAX_REPLY_BYTES, longest, provider_client, within
from app.providers.llm.base import Completion, Request, TokenUsage, ToolCall, ToolResult
from app.providers.llm.replies import ReplyReader, object_at, token_usage
from app.providers.openai_errors import translated

_CONNECT_SECONDS = 5
_FREE = (None, "auto", "none")

FILTERED = {"content_filter", "invalid_prompt", "bio_policy", "misalignment_policy_violation"}
"""The codes of errors that mean: the model would not answer this, ask something else."""


class OpenAIModel(ABC):
    """Asks `model` at `base_url`, or at OpenAI itself when there is none.

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
            # Servers of one's own often take no key, but the SDK insists on one.
            api_key=api_key or "none",
            base_url=base_url,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
            http_client=provider_client(MAX_REPLY_BYTES),
        )
        self._longest = longest(timeout, max_retries)
        self._reader = ReplyReader(self.name, "OpenAI's API", self._read, self._usage)

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; what the model turns out not to take is left out."""
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
        """Return what to send, but for the model and the temperature."""

    @abstractmethod
    async def _post(self, arguments: dict[str, Any]) -> bytes:
        """Send it and return the answer as it came."""

    @abstractmethod
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        """Return the cost that an answer states, whatever else it holds."""

    @abstractmethod
    def _read(self, answer: dict[str, Any]) -> Completion:
        """Return what the answer says; raises KeyError and the like if it is no answer."""

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
            async with within(self._longest, self.name):
                return await self._post(arguments)
        except openai.BadRequestError as error:
            if error.code in FILTERED:
                return None
            raise translated(self.name, error, self._api_key) from None  # it may show the key
        except openai.OpenAIError as error:
            raise translated(self.name, error, self._api_key) from None

    def _concede(self, refusal: str, arguments: dict[str, Any]) -> bool:
        """Give up the parameter that the model refuses, for good; False if none is at fault."""
        if "temperature" in refusal and "temperature" in arguments:
            self._takes_temperature = False
        elif "tool_choice" in refusal and arguments.get("tool_choice") not in _FREE:
            self._can_be_forced = False
        else:
            return False
        return True

    def _refused(self) -> Completion:
        return Completion("", (), "refusal", TokenUsage(0, 0, 0, None), self._model)


def read_usage(model: str, usage: Mapping[str, Any], received: str, sent: str) -> TokenUsage:
    """Return an answer's cost; `received` and `sent` name its counts of input and output tokens."""
    details = object_at(usage, f"{received}_details")
    return token_usage(
        model,
        input_tokens=usage.get(received),
        output_tokens=usage.get(sent),
        cached=details.get("cached_tokens"),
        written=details.get("cache_write_tokens"),
    )


def arguments_of(call: ToolCall) -> str:
    """Return the arguments to send back: servers parse them, so no broken JSON may return."""
    return "{}" if call.arguments is None else call.raw


def output_of(result: ToolResult) -> str:
    """Return the result in words, as OpenAI has no mark for errors."""
    return f"Error: {result.content}" if result.is_error else result.content
