"""OpenAI's models, called through its Responses API; nothing is stored there."""

from typing import Any, Literal

from typing_extensions import override

from app.providers.errors import ProviderError, RateLimitedError, UnavailableError, without_key
from app.providers.llm import (
    Completion,
    Message,
    Request,
    TokenUsage,
    Tool,
    ToolCall,
    Verbatim,
)
from app.providers.openai_api import (
    FILTERED,
    OpenAIModel,
    echo_arguments,
    read_usage,
    result_text,
)
from app.providers.replies import (
    arguments_text,
    clean_text,
    json_object,
    object_at,
    read_model,
    read_name,
)

_REASONING = "reasoning.encrypted_content"
_WORDS = {"output_text": "text", "refusal": "refusal"}
_STORED_FIELDS = {"id", "status"}
"""Fields that refer to items stored at OpenAI; `store: false` leaves none there."""


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
            body["tools"] = [_tool(tool) for tool in request.tools]
            body["tool_choice"] = _choice(request.tool_choice)
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
        return [*outputs, *text, *(_tool_call(call) for call in message.calls)]

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
        calls = tuple(_call(item) for item in items if item["type"] == "function_call")
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


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,  # strict schemas must name every property as required
    }


def _choice(choice: str) -> str | dict[str, Any]:
    if choice in {"auto", "none"}:
        return choice
    return "required" if choice == "any" else {"type": "function", "name": choice}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    called = {"type": "function_call", "call_id": call.id, "name": call.name}
    return {**called, "arguments": echo_arguments(call)}


def _call(item: dict[str, Any]) -> ToolCall:
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
