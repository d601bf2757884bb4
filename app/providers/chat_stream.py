"""Replies of Chat Completions sent as a stream of events, joined into one reply."""

import json
from dataclasses import dataclass, field
from typing import Any

from app.providers.http import parse_reply

_MAX_EVENTS = 100_000
_LEADS = (b"data:", b"event:", b"id:", b"retry:", b":")
_END = b"[DONE]"


def is_stream(body: bytes) -> bool:
    """Return whether a reply is a stream of events."""
    return body[:100].lstrip().startswith(_LEADS)


def join_stream(body: bytes) -> bytes:
    """Return the reply that the events of a stream make up; raises ValueError.

    A stream that breaks off, with neither a reason nor an end, is a truncated reply. One with an
    error has no answer.
    """
    events, is_ended = _events(body)
    reply: dict[str, Any] = {}
    message = _Message()
    reason = None
    for event in events:
        reply |= {name: value for name, value in event.items() if name != "choices" and value}
        for choice in event.get("choices") or ():
            message.add(choice.get("delta") or choice.get("message") or {})
            reason = choice.get("finish_reason") or reason
    if "error" not in reply and (message.is_begun or reason):
        reason = reason or (None if is_ended else "length")
        reply["choices"] = [{"index": 0, "message": message.whole(), "finish_reason": reason}]
    return json.dumps(reply).encode()


def _events(body: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Return the events of a stream, and whether the server says that it is at its end."""
    lines = (line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:"))
    found = [line for line in lines if line]
    if len(found) > _MAX_EVENTS:
        raise ValueError(f"the stream has more than {_MAX_EVENTS:,} events")
    events = [parse_reply(line) for line in found if line != _END]
    return [event for event in events if isinstance(event, dict)], _END in found


@dataclass(slots=True)
class _Call:
    """A call whose parts arrive one after another."""

    index: object
    id: object = None
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)

    def continues(self, index: object, call_id: object, name: object, arguments: str) -> bool:
        """Return whether a part belongs to this call, and does not begin another.

        Some servers number no calls, or all of them alike; some repeat the id or the name in each
        part, or give every part another id.
        """
        is_beginning = arguments.lstrip()[:1] in ("", "{")
        if call_id and self.id:
            is_other = bool(name or (index is None and is_beginning and self.arguments))
            return call_id == self.id or not is_other
        if not name or not self.names:
            return True
        is_named = index is not None or name == self.names[-1]
        return is_named and not (self.arguments and is_beginning)

    def whole(self) -> dict[str, Any]:
        """Return the call as in a reply that is not a stream."""
        function = {"name": "".join(self.names), "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


class _Message:
    """The message that a stream's deltas make up."""

    def __init__(self) -> None:
        self._contents: dict[str, list[Any]] = {}
        self._calls: list[_Call] = []
        self._last: dict[object, _Call] = {}

    @property
    def is_begun(self) -> bool:
        """True if there is a text or a call."""
        return bool(self._contents or self._calls)

    def add(self, delta: dict[str, Any]) -> None:
        """Add what an event brings."""
        for name, value in delta.items():
            if isinstance(value, str) and value and name != "role":
                self._contents.setdefault(name, []).append(value)
            elif name == "content" and isinstance(value, list):
                self._contents.setdefault(name, []).extend(value)
        parts = delta.get("tool_calls") or ()
        for part in [parts] if isinstance(parts, dict) else parts:
            self._add_call(part.get("index"), part.get("id"), part.get("function") or part)
        if isinstance(oldest := delta.get("function_call"), dict):
            self._add_call(None, None, oldest)

    def _add_call(self, index: object, call_id: object, function: dict[str, Any]) -> None:
        given = function.get("arguments")
        arguments = given if isinstance(given, str) else "" if given is None else json.dumps(given)
        index = index if isinstance(index, int) else None
        name = function.get("name")
        place = call_id if index is None and isinstance(call_id, str) else index
        is_last = index is None and place not in self._last and self._calls
        call = self._calls[-1] if is_last else self._last.get(place)
        if call is None or not call.continues(index, call_id, name, arguments):
            call = _Call(index)
            self._calls.append(call)
            self._last[place] = call
        call.id = call.id or call_id
        if isinstance(name, str) and name and name != (call.names or [""])[-1]:
            call.names.append(name)
        if arguments:
            call.arguments.append(arguments)

    def whole(self) -> dict[str, Any]:
        """Return the message as in a reply that is not a stream."""
        message: dict[str, Any] = {"role": "assistant"}
        for name, parts in self._contents.items():
            is_text = all(isinstance(part, str) for part in parts)
            message[name] = "".join(parts) if is_text else parts
        if self._calls:
            message["tool_calls"] = [call.whole() for call in self._calls]
        return message
