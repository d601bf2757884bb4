"""OpenAI's language models by its Responses API, and other servers' by Chat Completions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import openai
from typing_extensions import override

from app.providers.errors import (
    BadRequestError,
    ProviderError,
    RateLimitedError,
    UnavailableError,
    without_key,
)
from app.providers.http import MAX_REPLY_BYTES, limit_time, provider_client, request_deadline
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
from app.providers.openai_errors import translate_error
from app.providers.replies import (
    ReplyReader,
    arguments_text,
    clean_text,
    json_object,
    object_at,
    read_model,
    read_name,
    token_usage,
)

_CONNECT_SECONDS = 5
_FREE = (None, "auto", "none")

FILTERED = {"content_filter", "invalid_prompt", "bio_policy", "misalignment_policy_violation"}
"""Codes of errors by which a filter or the model refuses this request, but not others."""

_FINISH_REASONS: dict[str | None, Literal["length", "refusal"]] = {
    "length": "length",
    "content_filter": "refusal",
}

_REASONING = "reasoning.encrypted_content"
_WORDS = {"output_text": "text", "refusal": "refusal"}
_STORED_FIELDS = {"id", "status"}
"""Fields that refer to items stored at OpenAI; `store: false` leaves none there."""


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


class ChatLLM(OpenAIModel):
    """Calls a compatible server.

    `max_tokens` is the name of the limit that all of them know. Ollama and others ignore the
    name that replaced it, and would have no limit; gateways to OpenAI's newer models
    refuse the old name, and say so.
    """

    _limit_name = "max_tokens"
    _reasons_with_tools = True

    @override
    def _body(self, request: Request) -> dict[str, Any]:
        system = [{"role": "system", "content": request.system}] if request.system else []
        body: dict[str, Any] = {
            self._limit_name: request.max_tokens,
            "messages": system + [turn for m in request.messages for turn in self._turns(m)],
        }
        if request.tools:
            body["tools"] = [_chat_tool(tool) for tool in request.tools]
            body["tool_choice"] = _chat_choice(request.tool_choice)
            if not self._reasons_with_tools:
                body["reasoning_effort"] = "none"
        return body

    def _turns(self, message: Message) -> list[dict[str, Any]]:
        """Return the message in OpenAI's format, in which each result is a message of its own."""
        if message.verbatim is not None and message.verbatim.llm == self.name:
            return [message.verbatim.content]
        turns: list[dict[str, Any]] = [
            {"role": "tool", "tool_call_id": result.call_id, "content": result_text(result)}
            for result in message.results
        ]
        if message.calls:
            calls = [_chat_tool_call(call) for call in message.calls]
            turns.append({"role": "assistant", "content": message.text, "tool_calls": calls})
        elif message.text:
            turns.append({"role": message.role, "content": message.text})
        return turns

    @override
    async def _post(self, arguments: dict[str, Any]) -> bytes:
        response = await self._client.chat.completions.with_raw_response.create(**arguments)
        return bytes(response.content)

    @override
    def _concede(self, refusal: str, arguments: dict[str, Any]) -> bool:
        if "max_completion_tokens" in refusal and "max_tokens" in arguments:
            self._limit_name = "max_completion_tokens"
        elif "reasoning_effort" in refusal and self._reasons_with_tools and "tools" in arguments:
            self._reasons_with_tools = False
        else:
            return super()._concede(refusal, arguments)
        return True

    @override
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        return read_usage(model, object_at(answer, "usage"), "prompt_tokens", "completion_tokens")

    @override
    def _read(self, answer: dict[str, Any]) -> Completion:
        choice = answer["choices"][0]
        message = choice["message"]
        calls = tuple(
            _read_chat_call(call, n) for n, call in enumerate(message.get("tool_calls") or ())
        )
        refusal = message.get("refusal")
        stop = "refusal" if refusal else _FINISH_REASONS.get(choice.get("finish_reason"))
        whole = all(call.arguments is not None for call in calls) and all(
            call.get("id") and isinstance(call["function"].get("arguments"), str)
            for call in message.get("tool_calls") or ()
        )
        kept = {name: value for name, value in message.items() if value or name == "content"}
        model = read_model(answer, self._model)
        return Completion(
            text=_chat_text(refusal or message.get("content") or ""),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=self._usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, kept) if calls and whole else None,
        )


def _chat_text(content: Any) -> str:
    """Return a message's text, which some servers send as a list of blocks."""
    if isinstance(content, list):
        return "".join(clean_text(block["text"]) for block in content if block["type"] == "text")
    return clean_text(content)


def _chat_tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _chat_choice(choice: str) -> str | dict[str, Any]:
    if choice in {"auto", "none"}:
        return choice
    if choice == "any":
        return "required"
    return {"type": "function", "function": {"name": choice}}


def _chat_tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": echo_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _read_chat_call(call: dict[str, Any], number: int) -> ToolCall:
    """Read a call; servers leave out ids, leave out empty arguments, or send them as an object."""
    given = call["function"].get("arguments")
    raw = arguments_text({} if given is None else given)
    name = read_name(call["function"]["name"])
    return ToolCall(read_name(call.get("id") or f"call_{number}"), name, json_object(raw), raw)


class ResponsesLLM(OpenAIModel):
    """Calls OpenAI, and sends back the model's reasoning, which only OpenAI can read."""

    _shows_reasoning = True

    @override
    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "input": [item for message in request.messages for item in self._items(message)],
            "max_output_tokens": request.max_tokens,
            "store": False,
        }
        if request.system:
            body["instructions"] = request.system
        if self._shows_reasoning:
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
    def _concede(self, refusal: str, arguments: dict[str, Any]) -> bool:
        if "Encrypted content is not supported" in refusal and "include" in arguments:
            self._shows_reasoning = False  # models that do not reason refuse to show it
            return True
        return super()._concede(refusal, arguments)

    @override
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        return read_usage(model, object_at(answer, "usage"), "input_tokens", "output_tokens")

    @override
    def _read(self, answer: dict[str, Any]) -> Completion:
        if answer["status"] == "failed":
            if answer["error"]["code"] in FILTERED:
                return self._refused()
            raise self._failure(answer["error"])
        items, model = answer["output"], read_model(answer, self._model)
        calls = tuple(
            _read_response_call(item) for item in items if item["type"] == "function_call"
        )
        parts = [p for item in items if item["type"] == "message" for p in item["content"]]
        stop = _finish_reason(answer, parts)
        whole = all(call.arguments is not None for call in calls)
        return Completion(
            text="\n\n".join(
                clean_text(p[_WORDS[p["type"]]]) for p in parts if p["type"] in _WORDS
            ),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=self._usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, _without_stored_fields(items))
            if whole and stop is None
            else None,
        )

    def _failure(self, error: dict[str, Any]) -> ProviderError:
        message = without_key(clean_text(error["message"]), self._api_key)
        if error["code"] == "rate_limit_exceeded":
            return RateLimitedError(f"{self.name} asks for fewer requests: {message}")
        return UnavailableError(f"{self.name} fails: {message}")


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


def _read_response_call(item: dict[str, Any]) -> ToolCall:
    raw = arguments_text(item["arguments"])
    return ToolCall(read_name(item["call_id"]), read_name(item["name"]), json_object(raw), raw)


def _finish_reason(
    answer: dict[str, Any], parts: list[dict[str, Any]]
) -> Literal["length", "refusal"] | None:
    """Return why the model stopped early; None if it did not."""
    if answer["status"] == "incomplete":
        filtered = answer["incomplete_details"]["reason"] == "content_filter"
        return "refusal" if filtered else "length"
    return "refusal" if any(part["type"] == "refusal" for part in parts) else None


def _without_stored_fields(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in item.items() if v is not None and k not in _STORED_FIELDS}
        for item in items
    ]
