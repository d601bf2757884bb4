"""Shortening of conversations: which messages a running summary replaces.

Pure functions of the messages, their summary, and a budget.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Any, Literal, Self, TypeAlias

from app.conversations.messages import Turn, parse_messages, to_turns
from app.json_values import JsonObject

Message: TypeAlias = JsonObject
"""A message as the client sent it."""

Counter: TypeAlias = Callable[[Message, str], int]
"""Returns the cost of a message with a role, in the unit of a budget."""

CounterName: TypeAlias = Literal["approximate", "messages"]

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_IMAGE = 85


@dataclass(frozen=True, slots=True)
class Entry:
    """A message with its turn, which has its id, and its cost.

    `calls` and `results` are the ids of the tool calls that it makes and answers.
    """

    message: Message
    turn: Turn
    cost: int
    calls: frozenset[str] = frozenset()
    results: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """The message's id, the client's or a generated one."""
        return self.turn.id

    @property
    def is_system(self) -> bool:
        """True if it is a system message."""
        return self.turn.role == "system"

    @property
    def is_from_user(self) -> bool:
        """True if a user wrote it; results of tools have the same role in some formats."""
        return self.turn.role == "user" and not self.results


def to_entries(messages: Sequence[Mapping[str, Any]], counter: Counter) -> list[Entry]:
    """Return messages with their turns and costs; raises InvalidMessageError."""
    return [
        Entry(
            message={**message, "id": turn.id},
            turn=turn,
            cost=counter(dict(message), turn.role),
            calls=_calls(message),
            results=_results(message),
        )
        for message, turn in zip(messages, to_turns(parse_messages(messages)), strict=True)
    ]


def count_one(_message: Message, _role: str) -> int:
    """Return the cost of a message if messages are counted."""
    return 1


def approximate_tokens(message: Message, role: str) -> int:
    """Return a message's approximate tokens, as LangChain's approximate counter does."""
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
            characters += len(repr([_in_langchain_format(call) for call in calls]))
    tokens = math.ceil(characters / _CHARACTERS_PER_TOKEN)
    return tokens + _TOKENS_PER_MESSAGE + _TOKENS_PER_IMAGE * images


COUNTERS: Mapping[CounterName, Counter] = {
    "approximate": approximate_tokens,
    "messages": count_one,
}


@dataclass(frozen=True, slots=True)
class RunningSummary:
    """The summary of earlier messages; it replaces the messages with `message_ids`."""

    text: str
    message_ids: tuple[str, ...]
    last_id: str | None

    def message(self) -> Message:
        """Return the message that replaces the summarized ones."""
        return {"role": "system", "content": f"Summary of the conversation so far: {self.text}"}

    def extended(self, text: str, entries: Sequence[Entry]) -> Self:
        """Return the summary with a new text that covers more messages."""
        ids = (*self.message_ids, *(entry.id for entry in entries))
        return type(self)(text, ids, entries[-1].id)


@dataclass(frozen=True, slots=True)
class Budget:
    """Maximum cost of a conversation, in the unit of `counter`.

    Nothing is summarized while the messages without a summary cost less than `threshold`;
    `summary` is reserved for the summary.
    """

    total: int
    threshold: int
    summary: int
    counter: Counter

    def cost(self, message: Message) -> int:
        """Return the cost of a system message."""
        return self.counter(message, "system")


@dataclass(frozen=True, slots=True)
class ShorteningPlan:
    """A conversation, divided into messages to summarize and messages to keep.

    `replaced` are the messages to summarize. `read` are the messages that the model reads for the
    summary: the same, plus the user's newest message if it stays although later ones go.
    """

    system: Entry | None
    read: tuple[Entry, ...]
    replaced: tuple[Entry, ...]
    kept: tuple[Entry, ...]

    def result(self, summary: RunningSummary | None) -> list[Message]:
        """Return the conversation with its summary in place of the replaced messages."""
        system = [] if self.system is None else [self.system.message]
        shown = [] if summary is None else [summary.message()]
        return [*system, *shown, *(entry.message for entry in self.kept)]


def plan_shortening(
    entries: Sequence[Entry], running: RunningSummary | None, budget: Budget
) -> ShorteningPlan:
    """Choose the messages to summarize: the oldest ones, as few as bring the rest into the budget.

    The result of a tool goes with its call. The user's newest message stays.
    """
    system, rest = split_system(entries, running, budget)
    fresh = unsummarized(rest, running)
    room = budget.total - (system.cost if system else 0)
    shown = budget.cost(running.message()) if running else 0
    search = _CutSearch(fresh, room_with_new=room - budget.summary, room_as_it_is=room - shown)
    end, staying = search.cut(budget.threshold)
    return ShorteningPlan(
        system,
        read=tuple(fresh[:end]),
        replaced=tuple(entry for i, entry in enumerate(fresh[:end]) if i != staying),
        kept=tuple(entry for i, entry in enumerate(fresh) if i >= end or i == staying),
    )


def unsummarized(entries: Sequence[Entry], running: RunningSummary | None) -> list[Entry]:
    """Return the messages that a summary does not cover, in order."""
    if running is None:
        return list(entries)
    before = [*takewhile(lambda entry: entry.id != running.last_id, entries)]
    after = entries[len(before) + 1 :]
    if len(before) == len(entries):  # the last one is no longer there
        return before
    covered = set(running.message_ids)
    return [*(entry for entry in before if entry.id not in covered), *after]


def find_misplaced(entries: Sequence[Entry], running: RunningSummary) -> Entry | None:
    """Return a message that a summary covers, although it comes after the last one it covers."""
    covered = set(running.message_ids)
    return next((entry for entry in unsummarized(entries, running) if entry.id in covered), None)


def split_turns(turns: Sequence[Turn], characters: int) -> list[list[Turn]]:
    """Divide a conversation into parts that a model can read; only longer turns are cut."""
    found: list[list[Turn]] = [[]]
    room = characters
    for turn in turns:
        for start in range(0, max(len(turn.text), 1), characters):
            piece = replace(turn, text=turn.text[start : start + characters])
            if len(piece.text) > room and found[-1]:
                found.append([])
                room = characters
            found[-1].append(piece)
            room -= len(piece.text)
    return found


class _CutSearch:
    """Search for the position up to which messages are summarized."""

    def __init__(self, entries: Sequence[Entry], *, room_with_new: int, room_as_it_is: int) -> None:
        self._until = [0, *accumulate(entry.cost for entry in entries)]
        self._room_with_new = room_with_new
        self._room_as_it_is = room_as_it_is
        self._boundaries = _boundaries(entries)
        self._end = len(entries)
        self._newest = max(
            (i for i, entry in enumerate(entries) if entry.is_from_user), default=None
        )

    def cut(self, threshold: int) -> tuple[int, int | None]:
        """Return how many messages to read, and the index of one of these that stays."""
        if not self._end or self._until[-1] < threshold:
            return 0, None
        positions = range(1, self._end + 1)
        fitting = (i for i in positions if self._until[i] >= threshold and self._fits(i))
        first = next(fitting, self._end)
        cut = next(i for i in self._boundaries if i >= first)
        if self._newest is None or cut <= self._newest:
            return cut, None
        return self._around(self._newest)

    def _around(self, newest: int) -> tuple[int, int | None]:
        """Cut before the user's newest message, or around it if that does not free enough."""
        cut = max(i for i in self._boundaries if i <= newest)
        if self._fits(cut):
            return cut, None
        cost = self._until[newest + 1] - self._until[newest]
        later = (i for i in self._boundaries if i > max(newest, 1) and self._fits(i, cost))
        return next(later, self._end), newest

    def _fits(self, cut: int, staying: int = 0) -> bool:
        """Return whether the rest fits, together with a new summary if anything is summarized."""
        left = self._until[-1] - self._until[cut] + staying
        return left <= (self._room_with_new if cut else self._room_as_it_is)


def _boundaries(entries: Sequence[Entry]) -> list[int]:
    """Return the positions at which a cut separates no tool result from its call."""
    answers: dict[str, int] = {}  # position of a call's next answer: ids may repeat
    needed = [0] * len(entries)  # position at which an entry's calls are answered
    for i in reversed(range(len(entries))):
        ends = (answers[call] + 1 for call in entries[i].calls if call in answers)
        needed[i] = max(ends, default=0)
        answers |= dict.fromkeys(entries[i].results, i)
    return [i for i, end in enumerate(accumulate([0, *needed], max)) if end <= i]


def split_system(
    entries: Sequence[Entry], running: RunningSummary | None, budget: Budget
) -> tuple[Entry | None, Sequence[Entry]]:
    """Return the leading system message and the other messages, both without the old summary."""
    shown = None if running is None else str(running.message()["content"]).strip()
    rest = [entry for entry in entries if not (entry.is_system and entry.turn.text == shown)]
    if not rest or not rest[0].is_system:
        return None, rest
    system = rest.pop(0)
    if running is None or shown is None or running.text not in system.turn.text:
        return system, rest
    if shown not in system.turn.text:  # another wording, LangMem's: only a summary
        return None, rest
    message = {**system.message, "content": system.turn.text.replace(shown, "").strip()}
    return replace(system, message=message, cost=budget.cost(message)), rest


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


def _in_langchain_format(call: Mapping[str, Any]) -> JsonObject:
    function = call["function"] if isinstance(call.get("function"), Mapping) else call
    arguments = function.get("args", function.get("arguments", {}))
    return {
        "name": function.get("name"),
        "args": arguments,
        "id": call.get("id"),
        "type": "tool_call",
    }
