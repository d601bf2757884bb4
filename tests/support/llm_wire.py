"""The JSON of Anthropic's Messages and of both of OpenAI's, from the server's side."""

import json
from typing import TYPE_CHECKING, Any, Literal

import orjson

from app.providers.llm import Message, Tool, ToolCall, ToolResult

if TYPE_CHECKING:
    from tests.support.llm_server import Reply

JSON = dict[str, Any]
View = tuple[str, str, tuple[Message, ...], tuple[Tool, ...], str, int]
"""Model, system, messages, tools, tool choice and the limit of tokens."""


def read_anthropic(body: JSON) -> View:
    tools = (  # those that Anthropic describes itself come with their name alone
        Tool(t["name"], t.get("description", ""), t.get("input_schema", {}))
        for t in body.get("tools", [])
    )
    choice = body.get("tool_choice", {"type": "auto"})
    return (
        body["model"],
        _text(body.get("system", "")),
        tuple(_anthropic_message(message) for message in body["messages"]),
        tuple(tools),
        choice["name"] if choice["type"] == "tool" else choice["type"],
        body["max_tokens"],
    )


def read_chat(body: JSON) -> View:
    functions = [tool["function"] for tool in body.get("tools", [])]
    choice = body.get("tool_choice", "auto")
    system = [m["content"] for m in body["messages"] if m["role"] == "system"]
    if isinstance(choice, dict):
        choice = choice["function"]["name"]
    return (
        body["model"],
        "\n".join(system),
        chat_messages([m for m in body["messages"] if m["role"] != "system"]),
        tuple(Tool(f["name"], f["description"], f["parameters"]) for f in functions),
        "any" if choice == "required" else choice,
        body.get("max_completion_tokens") or body["max_tokens"],
    )


def write_anthropic(reply: "Reply", model: str, number: int) -> JSON:
    stops = {"end": "end_turn", "tools": "tool_use", "length": "max_tokens", "refusal": "refusal"}
    content: list[JSON] = [{"type": "text", "text": reply.text}] if reply.text else []
    for place, (name, arguments) in enumerate(reply.calls):
        call_id = f"toolu_{number}_{place}"
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": arguments})
    usage = reply.usage
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stops[reply.stop],
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens - usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0,
        },
    }


def write_chat(reply: "Reply", model: str, number: int) -> JSON:
    stops = {
        "end": "stop",
        "tools": "tool_calls",
        "length": "length",
        "refusal": "content_filter",
    }
    message: JSON = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}_{place}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for place, (name, arguments) in enumerate(reply.calls)
        ]
    usage = reply.usage
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": stops[reply.stop]}],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
    }


def read_responses(body: JSON) -> View:
    assert body["store"] is False, "others could read a stored response"
    tools = (Tool(t["name"], t["description"], t["parameters"]) for t in body.get("tools", []))
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, dict):
        choice = choice["name"]
    return (
        body["model"],
        body.get("instructions", ""),
        chat_messages(_as_chat(body["input"])),
        tuple(tools),
        "any" if choice == "required" else choice,
        body["max_output_tokens"],
    )


def write_responses(reply: "Reply", model: str, number: int) -> JSON:
    status = "incomplete" if reply.stop == "length" else "completed"
    kind, word = ("refusal",) * 2 if reply.stop == "refusal" else ("output_text", "text")
    output: list[JSON] = []
    if reply.text:
        part = {"type": kind, word: reply.text}
        message = {"type": "message", "id": f"msg_{number}", "role": "assistant"}
        output.append({**message, "status": status, "content": [part]})
    for place, (name, arguments) in enumerate(reply.calls):
        raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
        ids = {"id": f"fc_{number}_{place}", "call_id": f"call_{number}_{place}"}
        call = {"type": "function_call", **ids, "name": name, "arguments": raw}
        output.append({**call, "status": status})
    usage = reply.usage
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1_800_000_000,
        "model": model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if reply.stop == "length" else None,
        "output": output,
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }


def _as_chat(items: list[JSON]) -> list[JSON]:
    """Return the items as messages of Chat Completions, where calls belong to a message."""
    messages: list[JSON] = []
    for item in items:
        match item.get("type", "message"):
            case "message":
                messages.append({"role": item["role"], "content": _text(item["content"])})
            case "function_call_output":
                result = {"tool_call_id": item["call_id"], "content": item["output"]}
                messages.append({"role": "tool", **result})
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(
                    {"id": item["call_id"], "function": item}
                )
            case other:
                assert other == "reasoning", f"nothing is scripted for {other}"
    return messages


def _text(content: str | list[JSON]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal", "") for part in content)


def _anthropic_message(message: JSON) -> Message:
    content = message["content"]
    role: Literal["user", "assistant"] = message["role"]
    blocks = content if isinstance(content, list) else []
    calls = [
        ToolCall(b["id"], b["name"], b["input"], orjson.dumps(b["input"]).decode())
        for b in blocks
        if b["type"] == "tool_use"
    ]
    results = [
        ToolResult(b["tool_use_id"], _text(b["content"]), b.get("is_error", False))
        for b in blocks
        if b["type"] == "tool_result"
    ]
    return Message(role, _text(content), tuple(calls), tuple(results))


def chat_messages(messages: list[JSON]) -> tuple[Message, ...]:
    """Put the results that OpenAI takes one by one, and the text after them, in one message."""
    found: list[Message] = []
    results: list[ToolResult] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(ToolResult(message["tool_call_id"], message["content"]))
            continue
        if results and message["role"] != "user":
            found.append(Message("user", results=tuple(results)))
            results = []
        found.append(_chat_message(message, tuple(results)))
        results = []
    if results:
        found.append(Message("user", results=tuple(results)))
    return tuple(found)


def _chat_message(message: JSON, results: tuple[ToolResult, ...]) -> Message:
    calls = [
        ToolCall(call["id"], call["function"]["name"], _object(raw), raw)
        for call in message.get("tool_calls", [])
        for raw in [call["function"]["arguments"]]
    ]
    return Message(message["role"], _text(message.get("content") or ""), tuple(calls), results)


def _object(raw: str) -> JSON | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
