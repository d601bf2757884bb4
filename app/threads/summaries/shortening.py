"""Which messages a running summary takes the place of: a pure function of the conversation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Self

from app.conversations.types import Turn
from app.threads.summaries.messages import Counter, Entry, Message


@dataclass(frozen=True, slots=True)
class RunningSummary:
    """What earlier messages came to; those with `message_ids` need not be shown any more."""

    text: str
    message_ids: tuple[str, ...]
    last_id: str | None

    def message(self) -> Message:
        """Return the message that stands for those summed up."""
        return {"role": "system", "content": f"Summary of the conversation so far: {self.text}"}

    def extended(self, text: str, entries: Sequence[Entry]) -> Self:
        """Return the summary, of `text` now, after it took in more messages."""
        ids = (*self.message_ids, *(entry.id for entry in entries))
        return type(self)(text, ids, entries[-1].id)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much room there is for a conversation, in what `counter` counts.

    Nothing is summed up while the messages that no summary covers take less than `threshold`;
    `summary` is set aside for the summary.
    """

    total: int
    threshold: int
    summary: int
    counter: Counter

    def cost(self, message: Message) -> int:
        """Return what a message of the system takes."""
        return self.counter(message, "system")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a conversation.

    `gone` is to be summed up. `read` is what the model is to read for that: the same, and the
    newest message of the user where that stays although later ones go.
    """

    system: Entry | None
    read: tuple[Entry, ...]
    gone: tuple[Entry, ...]
    kept: tuple[Entry, ...]

    def result(self, summary: RunningSummary | None) -> list[Message]:
        """Return the conversation with its summary in place of what was summed up."""
        system = [] if self.system is None else [self.system.message]
        shown = [] if summary is None else [summary.message()]
        return [*system, *shown, *(entry.message for entry in self.kept)]


def plan(entries: Sequence[Entry], running: RunningSummary | None, budget: Budget) -> Plan:
    """Choose what to sum up: from the oldest message on, as little as brings all into the budget.

    The result of a tool goes with its call. The newest message of the user stays.
    """
    system, rest = without_system(entries, running, budget)
    fresh = uncovered(rest, running)
    room = budget.total - (system.cost if system else 0)
    shown = budget.cost(running.message()) if running else 0
    walk = _Walk(fresh, room_with_new=room - budget.summary, room_as_it_is=room - shown)
    end, staying = walk.cut(budget.threshold)
    return Plan(
        system,
        read=tuple(fresh[:end]),
        gone=tuple(entry for i, entry in enumerate(fresh[:end]) if i != staying),
        kept=tuple(entry for i, entry in enumerate(fresh) if i >= end or i == staying),
    )


def uncovered(entries: Sequence[Entry], running: RunningSummary | None) -> list[Entry]:
    """Return the messages after the last one summed up, and those before it that were left out."""
    if running is None:
        return list(entries)
    before = [*takewhile(lambda entry: entry.id != running.last_id, entries)]
    after = entries[len(before) + 1 :]
    if len(before) == len(entries):  # the last one is not there any more
        return before
    covered = set(running.message_ids)
    return [*(entry for entry in before if entry.id not in covered), *after]


def summed_up_before(entries: Sequence[Entry], running: RunningSummary) -> Entry | None:
    """Return a message that a summary covers although it comes after the last one it covers."""
    covered = set(running.message_ids)
    return next((entry for entry in uncovered(entries, running) if entry.id in covered), None)


def parts(turns: Sequence[Turn], characters: int) -> list[list[Turn]]:
    """Divide a conversation into parts that a model can read, cutting only what is too long."""
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


class _Walk:
    """The search for the place up to which messages are summed up."""

    def __init__(self, entries: Sequence[Entry], *, room_with_new: int, room_as_it_is: int) -> None:
        self._until = [0, *accumulate(entry.cost for entry in entries)]
        self._room_with_new = room_with_new
        self._room_as_it_is = room_as_it_is
        self._whole = _boundaries(entries)
        self._end = len(entries)
        self._newest = max((i for i, entry in enumerate(entries) if entry.is_users), default=None)

    def cut(self, threshold: int) -> tuple[int, int | None]:
        """Return how many messages to read, and the index of one that stays nevertheless."""
        if not self._end or self._until[-1] < threshold:
            return 0, None
        places = range(1, self._end + 1)
        wanted = (i for i in places if self._until[i] >= threshold and self._fits(i))
        first = next(wanted, self._end)
        cut = next(i for i in self._whole if i >= first)
        if self._newest is None or cut <= self._newest:
            return cut, None
        return self._around(self._newest)

    def _around(self, newest: int) -> tuple[int, int | None]:
        """Cut before the newest message of the user, or around it where that frees too little."""
        cut = max(i for i in self._whole if i <= newest)
        if self._fits(cut):
            return cut, None
        cost = self._until[newest + 1] - self._until[newest]
        later = (i for i in self._whole if i > max(newest, 1) and self._fits(i, cost))
        return next(later, self._end), newest

    def _fits(self, cut: int, staying: int = 0) -> bool:
        """Tell whether what is left has room, beside a new summary if anything is summed up."""
        left = self._until[-1] - self._until[cut] + staying
        return left <= (self._room_with_new if cut else self._room_as_it_is)


def _boundaries(entries: Sequence[Entry]) -> list[int]:
    """Return the places at which no tool's result is parted from its call."""
    answers: dict[str, int] = {}  # where a call is answered next: ids may be used again
    needed = [0] * len(entries)  # where what an entry begins is complete
    for i in reversed(range(len(entries))):
        ends = (answers[call] + 1 for call in entries[i].calls if call in answers)
        needed[i] = max(ends, default=0)
        answers |= dict.fromkeys(entries[i].results, i)
    return [i for i, end in enumerate(accumulate([0, *needed], max)) if end <= i]


def without_system(
    entries: Sequence[Entry], running: RunningSummary | None, budget: Budget
) -> tuple[Entry | None, Sequence[Entry]]:
    """Set the leading system message aside, and take the old summary out of the conversation."""
    shown = None if running is None else str(running.message()["content"]).strip()
    rest = [entry for entry in entries if not (entry.is_system and entry.turn.text == shown)]
    if not rest or not rest[0].is_system:
        return None, rest
    system = rest.pop(0)
    if running is None or shown is None or running.text not in system.turn.text:
        return system, rest
    if shown not in system.turn.text:  # worded by somebody else: a summary and nothing more
        return None, rest
    message = {**system.message, "content": system.turn.text.replace(shown, "").strip()}
    return replace(system, message=message, cost=budget.cost(message)), rest
