"""Telling the messages of a thread that are sent again from those that are new."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, Any]

_DERIVED = re.compile(r"position:\d+")

_ROLES = {"human": "user", "ai": "assistant"}
"""What LangChain calls the roles."""


@dataclass(slots=True)
class Recognized:
    """Messages that were sent: the new ones, and what is to say about the others."""

    new: list[Message] = field(default_factory=list)
    already_known: int = 0
    differing: list[str] = field(default_factory=list)
    """Ids of known messages whose words are others now; what was said first stays."""


def derived_id(position: int) -> str:
    """Return the id of a message that came without one."""
    return f"position:{position}"


def is_derived(message_id: str) -> bool:
    """Tell whether an id is one that only the service gives."""
    return _DERIVED.fullmatch(message_id) is not None


def given_id(message: Message) -> str | None:
    """Return the id that a message came with."""
    message_id = message.get("id")
    return None if message_id is None or is_derived(message_id) else str(message_id)


def wording(message: Message) -> str:
    """Return who says what: the same text for the same message sent in another form."""
    role = message.get("role") or message.get("type")
    said = [
        _ROLES.get(str(role), role),
        message.get("name") or None,
        message.get("content"),
        message.get("tool_calls") or None,
    ]
    return json.dumps(said, sort_keys=True)


def recognize(sent: Sequence[Message], known: Mapping[str, Message]) -> Recognized:
    """Sort messages by their ids; `known` holds those of the thread that have one of them."""
    found = Recognized()
    seen = dict(known)
    for message in sent:
        message_id = message.get("id")
        if message_id is None or message_id not in seen:
            found.new.append(message)
            if message_id is not None:
                seen[message_id] = message
            continue
        found.already_known += 1
        if wording(seen[message_id]) != wording(message):
            found.differing.append(message_id)
    return found


def repeated(first: Sequence[Message], last: Sequence[Message], sent: Sequence[Message]) -> int:
    """Return how many messages, from the first sent, repeat what the thread holds.

    For callers that send the conversation so far each time. `first` and `last` are as many messages
    from the thread's beginning and end as were sent. What was sent may go on where the thread ends,
    or be older than the thread (two requests that overtook each other); a message in the middle of
    the thread that happens to say the same counts for nothing.
    """
    if len(sent) <= len(first) and _agree(first, sent):
        return len(sent)
    for length in range(min(len(last), len(sent)), 0, -1):
        if _agree(last[-length:], sent):
            return length
    return 0


def _agree(stored: Sequence[Message], sent: Sequence[Message]) -> bool:
    return all(_same(one, other) for one, other in zip(stored, sent, strict=False))


def _same(one: Message, other: Message) -> bool:
    ids = (given_id(one), given_id(other))
    return ids[0] == ids[1] if None not in ids else wording(one) == wording(other)
