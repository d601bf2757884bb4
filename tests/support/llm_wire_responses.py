"""The JSON of OpenAI's Responses, from the server's side."""

import json
from typing import TYPE_CHECKING

from app.providers.llm.base import Tool
from tests.support.llm_wire import JSON, View, chat_messages

if TYPE_CHECKING:
    from tests.support.llm_server import Reply


def read_responses(body: JSON) -> View:
    assert body["store"] is False, "what is stored could be read by others"
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
