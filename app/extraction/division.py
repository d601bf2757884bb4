"""Division of an extraction that is longer than its model reads."""

from dataclasses import replace

from app.conversations.memories import LLMTask

_SHORTEST_MESSAGE = 1_000
"""A message is not cut shorter: a model that refuses it reads too little to be of use."""


def divide_task(task: LLMTask) -> list[LLMTask]:
    """Return shorter tasks that make up a task; none if it cannot be divided.

    The context is left out first. Then the messages are halved, and a single one is cut.
    """
    if task.context_turns:
        return [replace(task, turns=task.turns[task.context_turns :], context_turns=0)]
    middle = len(task.turns) // 2
    if middle:
        halves = (task.turns[:middle], task.turns[middle:])
        return [replace(task, turns=turns) for turns in halves]
    return [
        replace(task, turns=[replace(turn, text=_cut(turn.text))])
        for turn in task.turns
        if len(turn.text) > _SHORTEST_MESSAGE
    ]


def _cut(text: str) -> str:
    """Return the beginning and the end of a text, half of it, around a mark."""
    quarter = len(text) // 4
    left_out = len(text) - 2 * quarter
    return f"{text[:quarter]}\n[… {left_out:,} characters left out …]\n{text[-quarter:]}"
