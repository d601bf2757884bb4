"""Extraction in phases, each of them in parts if the model refuses the whole."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from app.conversations.call_habits import CallHabit
from app.conversations.dialogue import Ask
from app.conversations.division import Refusal, ask_in_parts, cut_turn, find_room, group_turns
from app.conversations.memories import LLMTask, Memory, Proposal, Rejection
from app.conversations.messages import Turn
from app.conversations.prompt_text import measure_memory, measure_turn, render_text
from app.extraction.loop import propose, reject
from app.extraction.tool_calls import Draft
from app.providers.errors import MisconfiguredError, ProviderError, RequestTooLongError

MAX_PARTS = 20
"""Maximum parts read before their memories are stored, if another job reads the rest."""

MAX_LEFT_OUT = 3
"""Maximum messages refused alone before any other passes; the model then refuses them all."""

_WORD = re.compile(r"\w+")


async def propose_in_phases(
    ask: Ask, tasks: Iterable[LLMTask], existing: Sequence[Memory], *, resumes: bool = False
) -> Proposal:
    """Return the edits of several tasks, each of which sees the memories that the last one left.

    Messages that are refused alone are left out if others pass. With `resumes`, another job reads
    the messages of the first task that this one could not: an error does not cost those it did.
    """
    reading = _Reading(ask, Draft(existing), resumes)
    for number, task in enumerate(tasks):
        if not task.turns and not reading.draft.memories:
            continue  # nothing to tidy up
        try:
            await reading.carry_out(task, is_first=not number)
        except ProviderError as error:
            if not reading.may_end_with(error, task):
                raise
            reading.rejected.append(reject("", str(error)))
            if not resumes:
                break
    return reading.proposal()


@dataclass(slots=True)
class _Reading:
    """Progress of an extraction: the edits so far, and how far the conversation was read."""

    ask: Ask
    draft: Draft
    resumes: bool
    rejected: list[Rejection] = field(default_factory=list)
    steps: int = 0
    habit: CallHabit = CallHabit.UNKNOWN
    read: int = 0
    _asked: LLMTask | None = None
    _answers: int = 0
    _left_out: list[Refusal] = field(default_factory=list)
    _is_first: bool = True

    async def carry_out(self, task: LLMTask, *, is_first: bool) -> None:
        """Ask about a task; the later ones concern the messages that the first one read."""
        self._is_first = is_first
        if task.turns and not is_first:
            task = replace(task, turns=task.turns[: task.context_turns + self.read])
        most = MAX_PARTS if self.resumes and is_first else None
        await ask_in_parts([task], self._ask_about, self._divide, most=most)
        if self._left_out and not self._answers:
            raise self._left_out[0]

    def may_end_with(self, error: ProviderError, task: LLMTask) -> bool:
        """Return whether what is done so far is kept in spite of an error."""
        if self.resumes and self._is_first:
            return self._answers > 0
        may_pass_later = error.retryable and task.may_be_retried
        is_passing = may_pass_later or isinstance(error, MisconfiguredError)
        return bool(self.draft.edits()) and not is_passing

    def proposal(self) -> Proposal:
        """Return the result."""
        rejected = tuple(self.rejected)
        return Proposal(self.draft.edits(), rejected, self.steps, self.read, self.habit)

    async def _ask_about(self, part: LLMTask) -> None:
        memories = self.draft.memories
        shown = select_memories(memories, part)
        are_all = part.existing_are_all and len(shown) == len(memories)
        self._asked = replace(part, existing=shown, existing_are_all=are_all)
        proposal = await propose(self.ask, self._asked)
        for edit in proposal.edits:
            is_new = edit.action == "insert"
            self.draft.apply(replace(edit, memory_id=self.draft.new_id()) if is_new else edit)
        self.rejected += proposal.rejected
        self.steps += proposal.steps
        self.habit = proposal.habit if self.habit is CallHabit.UNKNOWN else self.habit
        self._answers += 1
        self._pass(part)

    def _divide(self, left: Sequence[LLMTask], error: Refusal) -> list[LLMTask]:
        """Return the parts that replace those left; a refused message may be left out."""
        if parts := divide_tasks([self._asked or left[0], *left[1:]], error):
            return parts
        is_too_long = isinstance(error, RequestTooLongError)
        passes_none = not self._answers and (is_too_long or len(self._left_out) == MAX_LEFT_OUT)
        if len(left[0].turns) != 1 or passes_none:
            raise error
        self._left_out.append(error)
        reason = f'the message "{left[0].turns[0].id}" was left out: {error}'
        self.rejected.append(reject("", reason))
        self._pass(left[0])
        return list(left[1:])

    def _pass(self, part: LLMTask) -> None:
        if self._is_first:
            self.read += len(part.turns) - part.context_turns


def divide_tasks(tasks: Sequence[LLMTask], error: Refusal) -> list[LLMTask]:
    """Return smaller tasks in place of some, the first of which was refused; none if impossible.

    The context is left out first. Messages that are too long with the memories shown are divided
    until they take half of the room, which leaves the other half to memories. A message that takes
    more leaves less to them, and is cut if it does not even fit alone. All tasks are divided again,
    so that an attempt that knows the length from the beginning makes the same requests.
    """
    task, *others = tasks
    if task.context_turns:
        return [replace(task, turns=task.turns[task.context_turns :], context_turns=0), *others]
    if not isinstance(error, RequestTooLongError):
        middle = len(task.turns) // 2
        halves = (task.turns[:middle], task.turns[middle:])
        return [*(replace(task, turns=turns) for turns in halves), *others] if middle else []
    memories = sum(map(measure_memory, task.existing))
    room = find_room(error, memories + sum(map(measure_turn, task.turns)))
    if not room:
        return []
    turns = [turn for each in tasks for turn in each.turns]
    groups = group_turns(turns, max(room - memories, room // 2))
    return [_fit(task, group, room) for group in groups]


def _fit(task: LLMTask, turns: Sequence[Turn], room: int) -> LLMTask:
    shown = [cut_turn(turn, room) for turn in turns]
    left = max(0, room - sum(map(measure_turn, shown)))
    return replace(task, turns=shown, memory_characters=left)


def select_memories(memories: Sequence[Memory], task: LLMTask) -> list[Memory]:
    """Return the memories to show, in their order: all, or those nearest to the conversation.

    Documents of singletons come first, then the memories that share the most and the rarest words
    with the messages, the newest of them first.
    """
    room = task.memory_characters
    if room is None:
        return list(memories)
    said = find_words(" ".join(map(render_text, task.turns)))
    words = [find_words(json.dumps(memory.content, ensure_ascii=False)) for memory in memories]
    counts = Counter(word for found in words for word in found)
    singletons = {kind.name for kind in task.kinds if kind.singleton}

    def nearness(at: int) -> tuple[bool, float, int]:
        shared = sum(math.log(1 + len(words) / counts[word]) for word in words[at] & said)
        return memories[at].kind in singletons, shared, at

    chosen = set()
    for at in sorted(range(len(memories)), key=nearness, reverse=True):
        size = measure_memory(memories[at])
        if size <= room:
            room -= size
            chosen.add(at)
    return [memories[at] for at in sorted(chosen)]


def find_words(text: str) -> set[str]:
    """Return the distinct words of a text; pairs of characters in other scripts than Latin."""
    words = set(_WORD.findall(text.casefold()))
    pairs = (w[at : at + 2] for w in words if not w.isascii() for at in range(len(w) - 1))
    return {word for word in words if len(word) > 1} | set(pairs)
