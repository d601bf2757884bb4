"""Language models of compatible servers, by OpenAI's Chat Completions."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from app.providers.features import (
    MAX_TOKENS_NAME,
    REASONING_WITH_TOOLS,
    RETURNED_REASONING,
    SYSTEM_ROLE,
    TOOLS,
    WHOLE_REPLY,
    Concessions,
    Feature,
)
from app.providers.llm import Completion, Message, Request, TokenUsage, Tool, ToolCall, Verbatim
from app.providers.openai import OpenAIModel, echo_arguments, read_usage, result_text
from app.providers.plain_request import with_tools_in_words
from app.providers.replies import (
    FailedReplyError,
    clean_text,
    object_at,
    read_call,
    read_model,
    read_stop,
    read_text,
)
from app.providers.thoughts import remove_thoughts

_OWN_FIELDS = {"role", "content", "tool_calls"}
"""Members of an assistant's message that every server takes back."""


class ChatLLM(OpenAIModel):
    """Calls a compatible server.

    `max_tokens` is the name of the limit that all of them know. Ollama and others ignore the
    name that replaced it, and would have no limit; gateways to OpenAI's newer models
    refuse the old name, and say so.
    """

    @override
    def _body(self, request: Request, concessions: Concessions) -> dict[str, Any]:
        if request.tools and not concessions.allow(TOOLS):
            request = with_tools_in_words(request)
        is_new_name = not concessions.allow(MAX_TOKENS_NAME)
        limit_name = "max_completion_tokens" if is_new_name else "max_tokens"
        body: dict[str, Any] = {
            limit_name: concessions.limit_output(request.max_tokens),
            "messages": self._messages(request, concessions),
        }
        if request.tools:
            body["tools"] = [_chat_tool(tool) for tool in request.tools]
            body["tool_choice"] = _chat_choice(request.tool_choice)
            if not concessions.allow(REASONING_WITH_TOOLS):
                body["reasoning_effort"] = "none"
        if not concessions.allow(WHOLE_REPLY):
            body["extra_body"] = {"stream": True}  # as a parameter, the SDK would read the events
        return body

    @override
    def _features(self, request: Request, arguments: dict[str, Any]) -> Sequence[Feature]:
        messages = arguments["messages"]
        sent = {
            MAX_TOKENS_NAME: "max_tokens" in arguments,
            REASONING_WITH_TOOLS: "tools" in arguments and "reasoning_effort" not in arguments,
            TOOLS: "tools" in arguments,
            SYSTEM_ROLE: messages[:1] and messages[0]["role"] == "system",
            RETURNED_REASONING: any(
                message.keys() - _OWN_FIELDS
                for message in messages
                if message["role"] == "assistant"
            ),
            WHOLE_REPLY: "extra_body" not in arguments,
        }
        own = [feature for feature, is_sent in sent.items() if is_sent]
        return [*super()._features(request, arguments), *own]

    def _messages(self, request: Request, concessions: Concessions) -> list[dict[str, Any]]:
        reasons = concessions.allow(RETURNED_REASONING)
        turns = [
            turn if reasons or turn["role"] != "assistant" else _without_reasoning(turn)
            for message in request.messages
            for turn in self._turns(message)
        ]
        if not request.system:
            return turns
        if concessions.allow(SYSTEM_ROLE):
            return [{"role": "system", "content": request.system}, *turns]
        if turns and turns[0]["role"] == "user":
            return [
                {**turns[0], "content": f"{request.system}\n\n{turns[0]['content']}"},
                *turns[1:],
            ]
        return [{"role": "user", "content": request.system}, *turns]

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
    def _usage(self, answer: dict[str, Any], model: str) -> TokenUsage:
        return read_usage(model, object_at(answer, "usage"), "prompt_tokens", "completion_tokens")

    @override
    def _read(self, answer: dict[str, Any]) -> Completion:
        choice = answer["choices"][0]
        stop = read_stop(choice.get("finish_reason"))
        if stop == "failed" or choice.get("error"):
            raise FailedReplyError(_failure_words(choice))
        message = _sent_message(choice)
        sent_calls = _sent_calls(message)
        calls = tuple(_read_chat_call(call, n) for n, call in enumerate(sent_calls))
        refusal = message.get("refusal")
        if stop is None and read_stop(choice.get("native_finish_reason")) == "length":
            stop = "length"
        stop = "refusal" if refusal else stop
        model = read_model(answer, self._model)
        return Completion(
            text=remove_thoughts(read_text(refusal or message.get("content"))),
            calls=calls,
            finish_reason=stop or ("tools" if calls else "end"),
            usage=self._usage(answer, model),
            model=model,
            verbatim=self._verbatim(message, calls),
        )

    def _verbatim(self, message: dict[str, Any], calls: Sequence[ToolCall]) -> Verbatim | None:
        """Return a turn that may be sent back as it is; None if it has to be written again."""
        sent = message.get("tool_calls") or []
        is_whole = (
            bool(calls)
            and isinstance(sent, list)
            and len({call.id for call in calls}) == len(calls) == len(sent)
            and all(call.arguments is not None for call in calls)
            and all(
                call.get("id") and isinstance(call["function"].get("arguments"), str)
                for call in sent
            )
        )
        if not is_whole:
            return None
        kept = {name: value for name, value in message.items() if value}
        # Many servers refuse null.
        return Verbatim(
            self.name, {**kept, "role": "assistant", "content": kept.get("content", "")}
        )


def _sent_message(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice's message, which some servers send as a delta or as a text alone."""
    message = choice.get("message") or choice.get("delta")
    return message if isinstance(message, dict) else {"content": choice["text"]}


def _sent_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of a message, which some servers send in the oldest form, one alone."""
    sent = message.get("tool_calls") or ()
    given = [sent] if isinstance(sent, dict) else sent
    calls = [call for call in given if isinstance(call, dict)]
    oldest = message.get("function_call")
    return calls or ([{"function": oldest}] if isinstance(oldest, dict) else [])


def _without_reasoning(turn: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in turn.items() if name in _OWN_FIELDS}
    return {**kept, "content": read_text(kept.get("content"))}


def _failure_words(choice: dict[str, Any]) -> str:
    error = choice.get("error")
    words = error.get("message") if isinstance(error, dict) else error
    return clean_text(words)[:300] if isinstance(words, str) and words else "it gave no reason"


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
    function = object_at(call, "function") or call
    return read_call(function.get("name"), call.get("id"), function.get("arguments"), number)
