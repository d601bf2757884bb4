"""Replies of Chat Completions sent as a stream of events, joined into one reply."""

import json
import re
from typing import Any

from app.json_values import parse_json

_MAX_EVENTS = 100_000
_END = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)


def is_stream(body: bytes) -> bool:
    """Return whether a reply is a stream of events."""
    return body.lstrip()[:6].startswith((b"data:", b"event:", b": "))


def join_stream(body: bytes) -> bytes:
    """Return the reply that the events of a stream make up; raises ValueError.

    A stream that breaks off before it says that it has ended is a reply that was cut off.
    """
    reply: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant"}
    texts: dict[str, list[str]] = {}
    calls: dict[int, dict[str, Any]] = {}
    reason = None
    for event in _events(body):
        reply |= {name: value for name, value in event.items() if name != "choices" and value}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or choice.get("message") or {}
            reason = choice.get("finish_reason") or reason
            for name, value in delta.items():
                if isinstance(value, str) and name != "role":
                    texts.setdefault(name, []).append(value)
            for number, part in enumerate(delta.get("tool_calls") or ()):
                _add_call(calls, part, number)
    if reason is None and not _END.search(body):
        reason = "length"
    message |= {name: "".join(parts) for name, parts in texts.items()}
    if calls:
        message["tool_calls"] = [_whole_call(calls[index]) for index in sorted(calls)]
    if texts or calls or reason:
        reply["choices"] = [{"index": 0, "message": message, "finish_reason": reason}]
    return json.dumps(reply).encode()


def _events(body: bytes) -> list[dict[str, Any]]:
    lines = (line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:"))
    found = [line for line in lines if line and line != b"[DONE]"]
    if len(found) > _MAX_EVENTS:
        raise ValueError(f"the stream has more than {_MAX_EVENTS:,} events")
    events = [parse_json(line) for line in found]
    return [event for event in events if isinstance(event, dict)]


def _add_call(calls: dict[int, dict[str, Any]], part: dict[str, Any], number: int) -> None:
    function = part.get("function") or {}
    name = function.get("name")
    index = part.get("index")
    if not isinstance(index, int):
        index = _find_call(calls, part.get("id"), name, number)
    call = calls.setdefault(index, {"type": "function", "name": [], "arguments": []})
    call["id"] = call.get("id") or part.get("id")
    if isinstance(name, str) and [name] != call["name"]:  # some repeat it in every event
        call["name"].append(name)
    arguments = function.get("arguments")
    if arguments is not None:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        call["arguments"].append(text)


def _find_call(calls: dict[int, dict[str, Any]], call_id: object, name: object, number: int) -> int:
    """Return the place of a call that the server does not number: an id or a name begins one."""
    known = next((n for n, call in calls.items() if call_id and call.get("id") == call_id), None)
    if known is not None:
        return known
    return len(calls) if call_id or name or not calls else max(len(calls) - 1, number)


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": "".join(call["name"]), "arguments": "".join(call["arguments"])}
    return {"id": call.get("id"), "type": "function", "function": function}
