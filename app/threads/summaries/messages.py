"""What a summary needs to know of the messages of a conversation."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from app.conversations.messages import to_turns
from app.conversations.types import Turn

Message: TypeAlias = dict[str, Any]
"""A message as the client sent it."""

Counter: TypeAlias = Callable[[Message, str], int]
"""Returns how much of a budget a message with a role takes."""

CounterName: TypeAlias = Literal["approximate", "messages"]

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_IMAGE = 85


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with its id, as models are shown it, and what it takes of the budget.

    `calls` and `results` are the ids of the tool calls that it makes and answers.
    """

    message: Message
    turn: Turn
    cost: int
    calls: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """The message's id, given or made up."""
        return self.turn.id

    @property
    def is_system(self) -> bool:
        """Whether the message instructs the assistant."""
        return self.turn.role == "system"

    @property
    def is_users(self) -> bool:
        """Whether a user says something, other than what a tool returned."""
        return self.turn.role == "user" and not self.results


def read(messages: Sequence[Mapping[str, Any]], counter: Counter) -> list[Entry]:
    """Return what there is to know of messages; raises InvalidMessageError."""
    return [
        Entry(
            message={**message, "id": turn.id},
            turn=turn,
            cost=counter(dict(message), turn.role),
            calls=_calls(message),
            results=_results(message),
        )
        for message, turn in zip(messages, to_turns(messages), strict=True)
    ]


def one_each(_message: Message, _role: str) -> int:
    """Count messages."""
    return 1


def approximate_tokens(message: Message, role: str) -> int:
    """Return about how many tokens a message takes, as LangChain's approximate counter does."""
    content = message.get("content")
    characters = len(role) + len(message.get("name") or "") + len(message.get("tool_call_id") or "")
    images = 0
    if isinstance(content, list):
        for block in _blocks(message):
            if block.get("type") in {"image", "image_url"}:
                images += 1
            else:
                text = block.get("type") == "text"
                characters += len(block.get("text", "") if text else repr(block))
    else:
        characters += len(content or "")
        if calls := message.get("tool_calls"):
            characters += len(repr([_in_langchains_shape(call) for call in calls]))
    tokens = math.ceil(characters / _CHARACTERS_PER_TOKEN)
    return tokens + _TOKENS_PER_MESSAGE + _TOKENS_PER_IMAGE * images


COUNTERS: Mapping[CounterName, Counter] = {
    "approximate": approximate_tokens,
    "messages": one_each,
}


def _calls(message: Mapping[str, Any]) -> frozenset[str]:
    blocks = (block for block in _blocks(message) if block.get("type") == "tool_use")
    return _texts(call.get("id") for call in [*(message.get("tool_calls") or ()), *blocks])


def _results(message: Mapping[str, Any]) -> frozenset[str]:
    blocks = (block for block in _blocks(message) if block.get("type") == "tool_result")
    return _texts([message.get("tool_call_id"), *(block.get("tool_use_id") for block in blocks)])


def _blocks(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return [{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks]


def _texts(ids: Iterable[object]) -> frozenset[str]:
    return frozenset(found for found in ids if isinstance(found, str))


def _in_langchains_shape(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    arguments = function.get("args", function.get("arguments", {}))
    return {
        "name": function.get("name"),
        "args": arguments,
        "id": call.get("id"),
        "type": "tool_call",
    }
