"""Claude, or any server that speaks Anthropic's Messages API."""

from dataclasses import replace
from typing import Any, Literal

import anthropic
from anthropic.types import CacheControlEphemeralParam

from app.providers.errors import (
    BadRequestError,
    ProviderError,
    UnavailableError,
    error_of_status,
    retry_after,
    without_key,
)
from app.providers.http import MAX_REPLY_BYTES, limit_time, provider_client, request_deadline
from app.providers.llm import Completion, Message, Request, TokenUsage, ToolCall, Verbatim
from app.providers.replies import (
    ReplyReader,
    arguments_text,
    clean_text,
    json_object,
    object_at,
    read_model,
    read_name,
    sum_counts,
    token_usage,
)

_LONGEST_WAIT = 120
"""Maximum seconds that the provider may postpone a retry, as in the `openai` package."""

_CONNECT_SECONDS = 5
_CACHED: CacheControlEphemeralParam = {"type": "ephemeral"}
_FINISH_REASONS: dict[str | None, Literal["tools", "length", "refusal"]] = {
    "tool_use": "tools",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class AnthropicLLM:
    """Calls `model` at `base_url`, or at Anthropic itself without one.

    `timeout` is how many seconds the server may be silent, at each of 1 + `max_retries` attempts.
    Setting it also lifts the SDK's rule that long answers must be streamed.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None,
        base_url: str | None = None,
        timeout: float = 120,
        max_retries: int = 2,
    ) -> None:
        self.name = f"anthropic:{model}"
        self._model = model
        self._api_key = api_key
        self._can_be_forced = True
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key or "none",
            base_url=base_url,
            timeout=anthropic.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
            middleware=[_refuse_long_waits],
            http_client=provider_client(MAX_REPLY_BYTES),
        )
        self._deadline = request_deadline(timeout, max_retries)
        self._reader = ReplyReader(self.name, "Anthropic's API", self._completion, _usage)

    async def complete(self, request: Request) -> Completion:
        """Return the model's next turn; parameters that the model refuses are left out."""
        while True:
            try:
                return await self._reader.read(await self._send(self._arguments(request)))
            except BadRequestError as error:
                simpler = self._concede(str(error), request)
                if simpler is None:
                    raise
                request = simpler

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _arguments(self, request: Request) -> dict[str, Any]:
        if request.is_forced and not self._can_be_forced:
            request = request.with_choice_in_words()
        arguments: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "messages": [turn for message in request.messages if (turn := self._turn(message))],
        }
        if request.system:
            system = {"type": "text", "text": request.system, "cache_control": _CACHED}
            arguments["system"] = [system]
        if request.tools:
            arguments["tools"] = [
                {"name": t.name, "description": t.description, "input_schema": t.parameters}
                for t in request.tools
            ]
            arguments["tools"][-1]["cache_control"] = _CACHED
            arguments["tool_choice"] = _choice(request.tool_choice)
        return arguments

    def _turn(self, message: Message) -> dict[str, Any] | None:
        """Return the message in Anthropic's format; None for an empty one, which it refuses."""
        content: list[dict[str, Any]] = [
            {
                "type": "tool_result",
                "tool_use_id": result.call_id,
                "content": result.content,
                "is_error": result.is_error,
            }
            for result in message.results
        ]
        if message.verbatim is not None and message.verbatim.llm == self.name:
            content = message.verbatim.content
        else:
            if message.text:
                content.append({"type": "text", "text": message.text})
            for call in message.calls:
                use = {"type": "tool_use", "id": call.id, "name": call.name}
                content.append({**use, "input": call.arguments or {}})
        return {"role": message.role, "content": content} if content else None

    async def _send(self, arguments: dict[str, Any]) -> bytes:
        if self._client.is_closed():
            raise UnavailableError(f"{self.name} is closed; start the server again")
        try:
            async with limit_time(self._deadline, self.name):
                response = await self._client.messages.with_raw_response.create(**arguments)
                return bytes(await response.read())
        except anthropic.AnthropicError as error:
            raise self._translate(error) from None  # it may show the key

    def _translate(self, error: anthropic.AnthropicError) -> ProviderError:
        if isinstance(error, anthropic.APIStatusError):
            message = without_key(str(error.api_message or error.message), self._api_key)
            return error_of_status(self.name, error.status_code, message, error.response.headers)
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        message = without_key(f"{error}{cause}", self._api_key)
        return UnavailableError(f"{self.name} cannot be reached: {message}")

    def _concede(self, refusal: str, request: Request) -> Request | None:
        """Return the request without the refused part; None if there is none to leave out."""
        if "tool_choice" in refusal and request.is_forced and self._can_be_forced:
            self._can_be_forced = False
            return request
        if "thinking" in refusal and any(message.verbatim for message in request.messages):
            # Thinking is signed together with the text before it, which was changed.
            return replace(
                request, messages=tuple(replace(m, verbatim=None) for m in request.messages)
            )
        return None

    def _completion(self, answer: dict[str, Any]) -> Completion:
        content, model = answer["content"], read_model(answer, self._model)
        calls = tuple(_call(block) for block in content if block["type"] == "tool_use")
        whole = all(call.arguments is not None for call in calls)
        return Completion(
            text="".join(clean_text(block["text"]) for block in content if block["type"] == "text"),
            calls=calls,
            finish_reason=_FINISH_REASONS.get(answer.get("stop_reason"), "end"),
            usage=_usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, content) if whole else None,
        )


async def _refuse_long_waits(
    request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext
) -> anthropic.AsyncAPIResponse[Any]:
    """Leave waits beyond two minutes to the caller: the SDK sleeps as long as the header says."""
    response = await call_next(request)
    if (retry_after(response.headers) or 0) > _LONGEST_WAIT:
        response.headers["x-should-retry"] = "false"
    return response


def _choice(choice: str) -> dict[str, str]:
    if choice in {"auto", "any", "none"}:
        return {"type": choice}
    return {"type": "tool", "name": choice}


def _call(block: dict[str, Any]) -> ToolCall:
    raw = arguments_text(block["input"])
    return ToolCall(read_name(block["id"]), read_name(block["name"]), json_object(raw), raw)


def _usage(answer: dict[str, Any], model: str) -> TokenUsage:
    usage = object_at(answer, "usage")
    plain, cached = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
    written = usage.get("cache_creation_input_tokens")
    return token_usage(
        model,
        input_tokens=sum_counts(plain, cached, written),
        output_tokens=usage.get("output_tokens"),
        cached=cached,
        written=written,
    )
