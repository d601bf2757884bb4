"""OpenAI's language models by its Responses API, and the common part of both of its APIs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import openai
from typing_extensions import override

from app.providers.capabilities import Capabilities
from app.providers.error_replies import read_failure, to_error
from app.providers.errors import UnavailableError
from app.providers.features import (
    SHOWN_REASONING,
    TEMPERATURE,
    TOOL_CHOICE,
    Concessions,
    Feature,
)
from app.providers.http import MAX_REPLY_BYTES, limit_time, request_deadline
from app.providers.llm import (
    Completion,
    Message,
    Request,
    TokenUsage,
    Tool,
    ToolCall,
    ToolResult,
    Verbatim,
)
from app.providers.openai_client import open_client, translate_error
from app.providers.provider import Provider
from app.providers.replies import (
    ReplyReader,
    object_at,
    read_call,
    read_model,
    read_stop,
    read_text,
    token_usage,
)
from app.providers.served_llm import ServedLLM
from app.providers.thoughts import remove_thoughts

_CONNECT_SECONDS = 5
_FREE = (None, "auto", "none")

FILTERED = {"content_filter", "invalid_prompt", "bio_policy", "misalignment_policy_violation"}
"""Codes of errors by which a filter or the model refuses this request, but not others."""

_REASONING = "reasoning.encrypted_content"
_UNFINISHED = {"incomplete", "in_progress"}
_STORED_FIELDS = {"id", "status"}
"""Fields that refer to items stored at OpenAI; `store: false` leaves none there."""


class OpenAIModel(ServedLLM):
    """Calls `model` of a provider that speaks an API of OpenAI.

    `timeout` is how many seconds the server may be silent, at each of 1 + `max_retries` attempts.
    """

    def __init__(
        self,
        model: str,
        provider: Provider,
        *,
        timeout: float = 120,
        max_retries: int = 2,
        capabilities: Capabilities | None = None,
    ) -> None:
        super().__init__(model, provider, capabilities)
        self._client = open_client(
            provider,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            max_retries=max_retries,
            max_bytes=MAX_REPLY_BYTES,
        )
        self._deadline = request_deadline(timeout, max_retries)
        self._reader = ReplyReader(
            self.name, "OpenAI's API", self._read, self._usage, self._api_key
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    @abstractmethod
    def _body(self, request: Request, concessions: Concessions) -> dict[str, Any]:
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

    @override
    def _arguments(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        if request.is_forced and not concessions.allow(TOOL_CHOICE):
            request = request.with_choice_in_words()
        arguments = {"model": self._model, **self._body(request, concessions)}
        if request.temperature is not None and concessions.allow(TEMPERATURE):
            arguments["temperature"] = request.temperature
        return arguments

    @override
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        sent = {
            TOOL_CHOICE: arguments.get("tool_choice") not in _FREE,
            TEMPERATURE: "temperature" in arguments,
        }
        return [feature for feature, is_sent in sent.items() if is_sent]

    @override
    async def _answer(self, arguments: dict[str, Any]) -> Completion:
        body = await self._send(arguments)
        return self._refused() if body is None else await self._reader.read(body)

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


class ResponsesLLM(OpenAIModel):
    """Calls OpenAI, and sends back the model's reasoning, which only OpenAI can read."""

    @override
    def _body(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        body: dict[str, Any] = {
            "input": [item for message in request.messages for item in self._items(message)],
            "max_output_tokens": concessions.limit_output(request.max_tokens),
            "store": False,
        }
        if request.system:
            body["instructions"] = request.system
        if concessions.allow(SHOWN_REASONING):  # models that do not reason refuse to show it
            body["include"] = [_REASONING]
        if request.tools:
            body["tools"] = [_response_tool(tool) for tool in request.tools]
            body["tool_choice"] = _response_choice(request.tool_choice)
        return body

    def _items(self, message: Message) -> list[dict[str, Any]]:
        """Return the message in OpenAI's format, where results and calls are items of their own."""
        if message.verbatim is not None and message.verbatim.llm == self.name:
            content: list[dict[str, Any]] = message.verbatim.content
            return content
        outputs = [
            {"type": "function_call_output", "call_id": r.call_id, "output": result_text(r)}
            for r in message.results
        ]
        text = [{"role": message.role, "content": message.text}] if message.text else []
        return [*outputs, *text, *(_response_tool_call(call) for call in message.calls)]

    @override
    async def _post(self, arguments: dict[str, Any]) -> bytes:
        response = await self._client.responses.with_raw_response.create(**arguments)
        return bytes(response.content)

    @override
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        own = [SHOWN_REASONING] if "include" in arguments else []
        return [*super()._features(request, arguments), *own]

    @override
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        return read_usage(model, object_at(answer, "usage"), "input_tokens", "output_tokens")

    @override
    def _read(self, answer: dict[str, Any]) -> Completion:
        if answer.get("status") in {"failed", "cancelled"}:
            if object_at(answer, "error").get("code") in FILTERED:
                return self._refused()
            raise to_error(self.name, read_failure(object_at(answer, "error")), self._api_key)
        items, model = answer["output"], read_model(answer, self._model)
        calls = tuple(
            _read_response_call(item, n)
            for n, item in enumerate(items)
            if item.get("type") == "function_call"
        )
        messages = [item for item in items if item.get("type", "message") == "message"]
        stop = _finish_reason(answer, items, messages)
        whole = all(call.arguments is not None for call in calls)
        return Completion(
            text=remove_thoughts("\n\n".join(map(_message_text, messages))),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=self._usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, _without_stored_fields(items))
            if whole and stop is None
            else None,
        )


def _response_tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,  # strict schemas must name every property as required
    }


def _response_choice(choice: str) -> str | dict[str, Any]:
    if choice in {"auto", "none"}:
        return choice
    return "required" if choice == "any" else {"type": "function", "name": choice}


def _response_tool_call(call: ToolCall) -> dict[str, Any]:
    called = {"type": "function_call", "call_id": call.id, "name": call.name}
    return {**called, "arguments": echo_arguments(call)}


def _read_response_call(item: dict[str, Any], number: int) -> ToolCall:
    return read_call(item.get("name"), item.get("call_id"), item.get("arguments"), number)


def _finish_reason(
    answer: dict[str, Any], items: list[dict[str, Any]], messages: list[dict[str, Any]]
) -> Literal["length", "refusal"] | None:
    """Return why the model stopped early; None if it did not."""
    reason = object_at(answer, "incomplete_details").get("reason")
    if reason or any(part.get("status") in _UNFINISHED for part in (answer, *items)):
        return "refusal" if read_stop(reason) == "refusal" else "length"
    parts = [part for message in messages for part in _parts(message)]
    return "refusal" if any(part.get("type") == "refusal" for part in parts) else None


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    parts: list[Any] = content if isinstance(content, list) else [content]
    return "\n\n".join(filter(None, map(read_text, parts)))


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _without_stored_fields(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in item.items() if v is not None and k not in _STORED_FIELDS}
        for item in items
    ]
