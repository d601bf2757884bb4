"""Models behind any server that speaks OpenAI's Chat Completions."""

from typing import Any, Literal

from typing_extensions import override

from app.providers.llm import (
    Completion,
    Message,
    Request,
    TokenUsage,
    Tool,
    ToolCall,
    Verbatim,
)
from app.providers.openai_api import OpenAIModel, echo_arguments, read_usage, result_text
from app.providers.replies import (
    arguments_text,
    clean_text,
    json_object,
    object_at,
    read_model,
    read_name,
)

_FINISH_REASONS: dict[str | None, Literal["length", "refusal"]] = {
    "length": "length",
    "content_filter": "refusal",
}


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
            body["tools"] = [_tool(tool) for tool in request.tools]
            body["tool_choice"] = _choice(request.tool_choice)
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
            calls = [_tool_call(call) for call in message.calls]
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
        calls = tuple(_call(call, n) for n, call in enumerate(message.get("tool_calls") or ()))
        refusal = message.get("refusal")
        stop = "refusal" if refusal else _FINISH_REASONS.get(choice.get("finish_reason"))
        whole = all(call.arguments is not None for call in calls) and all(
            call.get("id") and isinstance(call["function"].get("arguments"), str)
            for call in message.get("tool_calls") or ()
        )
        kept = {name: value for name, value in message.items() if value or name == "content"}
        model = read_model(answer, self._model)
        return Completion(
            text=_text(refusal or message.get("content") or ""),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=self._usage(answer, model),
            model=model,
            verbatim=Verbatim(self.name, kept) if calls and whole else None,
        )


def _text(content: Any) -> str:
    """Return a message's text, which some servers send as a list of blocks."""
    if isinstance(content, list):
        return "".join(clean_text(block["text"]) for block in content if block["type"] == "text")
    return clean_text(content)


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _choice(choice: str) -> str | dict[str, Any]:
    if choice in {"auto", "none"}:
        return choice
    if choice == "any":
        return "required"
    return {"type": "function", "function": {"name": choice}}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": echo_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


def _call(call: dict[str, Any], number: int) -> ToolCall:
    """Read a call; servers leave out ids, leave out empty arguments, or send them as an object."""
    given = call["function"].get("arguments")
    raw = arguments_text({} if given is None else given)
    name = read_name(call["function"]["name"])
    return ToolCall(read_name(call.get("id") or f"call_{number}"), name, json_object(raw), raw)
