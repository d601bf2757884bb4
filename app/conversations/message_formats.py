"""Messages in the formats of model providers and frameworks, rewritten as plain messages."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel

from app.json_values import JsonObject

ACCEPTED = (
    'send {"role": "user", "content": "…"} with the role user, assistant, system, or tool; '
    'an item of OpenAI\'s Responses; {"role", "parts"}, as in Gemini and the AI SDK; '
    'or {"type": "human", "content": "…"}, as in LangChain'
)
"""The forms of a message, for errors."""

THOUGHTS = frozenset(
    {
        "reasoning",
        "reasoning_content",
        "reasoning_text",
        "redacted_reasoning",
        "redacted_thinking",
        "step_start",
        "summary_text",
        "thinking",
    }
)
"""Kinds of blocks, and of items of OpenAI's Responses, in which nothing is said."""

_SILENT_ITEMS = THOUGHTS | {
    "compaction",
    "item_reference",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
}
_ARGUMENTS = ("arguments", "input", "action", "operation", "queries", "code")
_FOREIGN_CALLS = ("functionCall", "function_call", "toolUse")
_FOREIGN_RESULTS = ("functionResponse", "function_response", "toolResult")

_MILLISECONDS = 100_000_000_000
"""Times from this number on are in milliseconds: in seconds it is the year 5138."""


def unwrap_message(message: object) -> object:
    """Return a message of any accepted form with its members in their plain places."""
    if isinstance(message, BaseModel):
        return message
    if isinstance(message, list | tuple):
        if len(message) != 2:
            raise ValueError('is a list; send an object, or a pair such as ["user", "Hello"]')
        return {"role": message[0], "content": message[1]}
    if isinstance(message, Mapping):
        plain = _with_content(_with_id_and_time(_without_wrapping(message)))
        item = None if "role" in plain else _read_item(plain)
        return plain if item is None else item
    raise ValueError(f"is no message; {ACCEPTED}")


def read_part(part: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return a block without a type, in the format of Gemini or Bedrock, as one with a type."""
    if part.get("thought") is True:
        return {"type": "thinking"}
    for name in _FOREIGN_CALLS:
        if isinstance(call := part.get(name), Mapping):
            return {**call, "type": "function_call"}
    for name in _FOREIGN_RESULTS:
        if isinstance(result := part.get(name), Mapping):
            return {**result, "type": "function_call_output"}
    kinds = (name for name, member in part.items() if isinstance(member, Mapping))
    kind = next(kinds, None)
    return None if kind is None else {"type": kind}


def json_text(value: object) -> str:
    """Return a text as it is, and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _without_wrapping(message: Mapping[str, object]) -> Mapping[str, object]:
    """Return the message in one of LangChain's two wrappings."""
    if "lc" in message and isinstance(kwargs := message.get("kwargs"), Mapping):
        return {"type": _class_name(message.get("id")), **kwargs}
    if "content" not in message and isinstance(data := message.get("data"), Mapping):
        return {"type": message.get("type"), **data}
    return message


def _class_name(path: object) -> object:
    """Return the last part of `["langchain", "schema", "messages", "HumanMessage"]`."""
    return path[-1] if isinstance(path, list) and path else None


def _with_id_and_time(message: Mapping[str, object]) -> Mapping[str, object]:
    """Return a message with texts for an id and a time that are numbers."""
    changed: JsonObject = {}
    if (number := _number(message.get("id"))) is not None:
        changed["id"] = str(number)
    if (time := _number(message.get("created_at"))) is not None:
        try:
            seconds = time / 1_000 if abs(time) >= _MILLISECONDS else time
            changed["created_at"] = datetime.fromtimestamp(seconds, UTC).isoformat()
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError("created_at is not a time in seconds since 1970; send one") from error
    return {**message, **changed} if changed else message


def _number(value: object) -> int | float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def _with_content(message: Mapping[str, object]) -> Mapping[str, object]:
    """Return a message whose words are in `content`, and whose call is in `tool_calls`."""
    call = message.get("function_call")
    if isinstance(call, Mapping) and "role" in message and not message.get("tool_calls"):
        message = {**_without(message, "function_call"), "tool_calls": [call]}
    if message.get("content") not in (None, "", []):
        return message
    if "role" in message and (parts := message.get("parts")):
        content = parts if isinstance(parts, list) else [parts]
        return {**_without(message, "parts"), "content": content}
    if (words := _find_words(message)) is not None:
        return {**_without(message, "audio", "text", "transcript"), "content": words}
    return message


def _find_words(message: Mapping[str, object]) -> str | None:
    """Return the transcript of a spoken message, or the text of one that has no content."""
    further = message.get("additional_kwargs")
    holders = (message, further if isinstance(further, Mapping) else {})
    for audio in (holder.get("audio") for holder in holders):
        if isinstance(audio, Mapping) and isinstance(spoken := audio.get("transcript"), str):
            return spoken
    named = (message.get(name) for name in ("transcript", "text"))
    is_message = "role" in message or "type" in message
    return next((words for words in named if isinstance(words, str)), None) if is_message else None


def _without(message: Mapping[str, object], *names: str) -> JsonObject:
    return {name: member for name, member in message.items() if name not in names}


def _read_item(item: Mapping[str, object]) -> JsonObject | None:
    """Return an item of OpenAI's Responses as a message; None if it is not such an item."""
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    known = {name: item[name] for name in ("id", "created_at") if item.get(name) is not None}
    if kind in _SILENT_ITEMS:
        return {**known, "role": "assistant", "content": []}
    output = item.get("output")
    if kind.endswith("_call_output"):
        content = output if isinstance(output, list) else json_text(output)
        return {**known, "role": "tool", "content": content}
    if kind.endswith("_call"):
        arguments = next((item[name] for name in _ARGUMENTS if name in item), "")
        call = {"name": item.get("name") or kind, "arguments": arguments}
        message = {**known, "role": "assistant", "tool_calls": [call]}
        if output is not None:  # a call that OpenAI's servers have executed
            result = {"type": "function_call_output", "output": json_text(output)}
            message |= {"content": [{"type": "function_call", **call}, result], "tool_calls": None}
        return message
    return None
