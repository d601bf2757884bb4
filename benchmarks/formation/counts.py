"""Counts that need no judge: sizes, dates, duplicates, and evidence."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import vectors
from benchmarks.formation.conversations import Conversation
from benchmarks.formation.dates import find_dates
from benchmarks.formation.records import CUTS, Answer, Memory

NEAR = 0.95
"""Cosine similarity from which two memories count as near duplicates."""


async def count(
    conversation: Conversation, memories: Sequence[Memory], answers: Sequence[Answer]
) -> dict[str, Any]:
    """Return all counts of a run."""
    embed = vectors.embedding(vectors.LOCAL)
    rows = await embed([memory.text for memory in memories]) if memories else np.zeros((0, 1))
    near = rows @ rows.T >= NEAR if len(memories) else np.zeros((0, 0), dtype=bool)
    normal = [" ".join(memory.text.lower().split()) for memory in memories]
    exact = np.array([[one == other for other in normal] for one in normal], dtype=bool)
    return {
        "memories": len(memories),
        "mean_characters": _mean([len(memory.text) for memory in memories]),
        "no_date_anywhere": sum(not has_date(memory) for memory in memories),
        "valid_from": Counter(judge_valid_from(memory, conversation) for memory in memories),
        "exact_duplicates": find_groups(exact),
        "near_duplicates": find_groups(near),
        "unwanted": find_unwanted(conversation, memories),
        **count_answers(answers),
        **count_evidence(conversation, memories, answers),
    }


def has_date(memory: Memory) -> bool:
    """Return whether a memory says in any way when."""
    dates = (memory.valid_from, memory.valid_to, memory.said_first, memory.said_last)
    return any(dates) or bool(find_dates(memory.text))


def judge_valid_from(memory: Memory, conversation: Conversation) -> str:
    """Compare `valid_from` with the dates in the text and the days of the source's messages.

    The text is the only witness here, so the result says what to look at, not what is wrong.
    """
    if memory.valid_from is None:
        return "none"
    given = memory.valid_from.partition("T")[0]
    written = find_dates(memory.text)
    if any(date.startswith(given) for date in written):
        return "as in the text"
    messages = conversation.messages
    said = [messages[id_].said_at.date().isoformat() for id_ in memory.evidence if id_ in messages]
    if any(day.startswith(given) for day in said):
        return "day of a message"
    if any(given.startswith(date) for date in written):
        return "more precise than the text"
    return "not in the text"


def find_groups(pairs: Any) -> list[list[int]]:
    """Return groups of two or more memories, by their numbers, that pairs connect."""
    group = list(range(len(pairs)))
    for one, other in zip(*np.nonzero(pairs), strict=True):
        old, new = max(group[one], group[other]), min(group[one], group[other])
        group = [new if name == old else name for name in group]
    members: dict[int, list[int]] = {}
    for number, name in enumerate(group, start=1):
        members.setdefault(name, []).append(number)
    return [numbers for numbers in members.values() if len(numbers) > 1]


def find_unwanted(conversation: Conversation, memories: Sequence[Memory]) -> dict[str, list[int]]:
    """Return the unwanted things with the numbers of the memories that have one of their texts."""
    found = {
        unwanted.description: [
            number
            for number, memory in enumerate(memories, start=1)
            if any(string.lower() in memory.text.lower() for string in unwanted.strings)
        ]
        for unwanted in conversation.unwanted
    }
    return {description: numbers for description, numbers in found.items() if numbers}


def count_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the sizes of the results of a question."""
    within = {
        f"results_within_{cut}": _mean([a.count_within(cut) for a in answers]) for cut in CUTS
    }
    return {
        "questions": len(answers),
        "characters_returned": _mean([answer.characters for answer in answers]),
        **within,
    }


def count_evidence(
    conversation: Conversation, memories: Sequence[Memory], answers: Sequence[Answer]
) -> dict[str, Any]:
    """Return how much of the evidence memories rest on; nothing if they do not name messages."""
    covered = {id_ for memory in memories for id_ in memory.evidence}
    if not covered:
        return {}
    return {
        "messages_with_memories": len(covered) / len(conversation.messages),
        "evidence_in_memories": _mean([_share(a.question.evidence, covered) for a in answers]),
        "evidence_returned": _mean(
            [_share(a.question.evidence, {i for m in a.found for i in m.evidence}) for a in answers]
        ),
    }


def _share(expected: Sequence[str], found: set[str]) -> float:
    return len(found.intersection(expected)) / len(expected) if expected else 1.0


def _mean(values: Sequence[float]) -> float:
    return round(mean(values), 3) if values else 0.0
