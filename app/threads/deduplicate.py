"""Separation of a thread's new messages from those that clients send again."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

MessageObject: TypeAlias = Mapping[str, Any]
"""A message as a client sent it."""

_POSITION_ID = re.compile(r"position:\d+")

_ROLES = {"human": "user", "ai": "assistant"}
"""LangChain's names of roles."""


@dataclass(slots=True)
class Deduplication:
    """The new messages of a request, and facts about the others."""

    new: list[MessageObject] = field(default_factory=list)
    already_known: int = 0
    conflicting: list[str] = field(default_factory=list)
    """Ids of known messages that came with other content; the stored content stays."""


def position_id(position: int) -> str:
    """Return the id of a message that a client sent without one."""
    return f"position:{position}"


def is_position_id(message_id: str) -> bool:
    """Return whether an id has the form that is reserved for `position_id`."""
    return _POSITION_ID.fullmatch(message_id) is not None


def canonical_text(message: MessageObject) -> str:
    """Return the same text for the same message, whichever library's format it has."""
    role = message.get("role") or message.get("type")
    parts = [
        _ROLES.get(str(role), role),
        message.get("name") or None,
        message.get("content"),
        message.get("tool_calls") or None,
    ]
    return json.dumps(parts, sort_keys=True)


def deduplicate(sent: Sequence[MessageObject], known: Mapping[str, MessageObject]) -> Deduplication:
    """Compare messages by their ids; `known` are the thread's messages that have one of these."""
    result = Deduplication()
    seen = dict(known)
    for message in sent:
        message_id = message.get("id")
        if message_id is None or message_id not in seen:
            result.new.append(message)
            if message_id is not None:
                seen[message_id] = message
            continue
        result.already_known += 1
        if canonical_text(seen[message_id]) != canonical_text(message):
            result.conflicting.append(message_id)
    return result


def count_repeated(
    first: Sequence[MessageObject], last: Sequence[MessageObject], sent: Sequence[MessageObject]
) -> int:
    """Return how many messages at the start of a request repeat messages of the thread.

    For callers that send the conversation so far each time. `first` and `last` are as many
    messages from the thread's beginning and end as were sent. The request may continue the
    thread's end, or be older than the thread (two requests that overtook each other); a match in
    the middle of the thread does not count.
    """
    if len(sent) <= len(first) and _match(first, sent):
        return len(sent)
    for length in range(min(len(last), len(sent)), 0, -1):
        if _match(last[-length:], sent):
            return length
    return 0


def _match(stored: Sequence[MessageObject], sent: Sequence[MessageObject]) -> bool:
    return all(_is_same(one, other) for one, other in zip(stored, sent, strict=False))


def _is_same(one: MessageObject, other: MessageObject) -> bool:
    ids = (_client_id(one), _client_id(other))
    return ids[0] == ids[1] if None not in ids else canonical_text(one) == canonical_text(other)


def _client_id(message: MessageObject) -> str | None:
    message_id = message.get("id")
    return None if message_id is None or is_position_id(message_id) else str(message_id)
