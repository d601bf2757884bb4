"""The memories and search results of a run, as files and as a reader sees them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.formation.conversations import Question

CUTS = (1_200, 2_300)
"""Characters of results that an agent may have room for."""

LIMIT = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory; `evidence` are the ids of the messages that it rests on."""

    key: str
    text: str
    value: dict[str, Any]
    valid_from: str | None = None
    valid_to: str | None = None
    said_first: str | None = None
    said_last: str | None = None
    evidence: list[str] = field(default_factory=list)
    item: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The text with all dates, as a judge and an agent see it."""
        said = _span(self.said_first, self.said_last)
        dates = [f"said {said}"] if said else []
        dates += [f"valid from {_short(self.valid_from)}"] if self.valid_from else []
        dates += [f"valid to {_short(self.valid_to)}"] if self.valid_to else []
        return f"[{'; '.join(dates)}] {self.text}" if dates else self.text


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and the memories that its search found, best first."""

    question: Question
    found: list[Memory]

    @property
    def ends(self) -> list[int]:
        """For each result, the characters up to its end."""
        return list(accumulate(len(memory.shown) for memory in self.found))

    @property
    def characters(self) -> int:
        """Characters of all results."""
        return sum(len(memory.shown) for memory in self.found)

    def count_within(self, characters: int) -> int:
        """Return the number of whole results that fit into a number of characters."""
        return sum(end <= characters for end in self.ends)


def _span(first: str | None, last: str | None) -> str:
    days = list(dict.fromkeys(moment[:10] for moment in (first, last) if moment))
    return " to ".join(days)


def _short(moment: str) -> str:
    """Return a date without a time of day that says nothing."""
    return moment.partition("T")[0] if "T00:00:00" in moment else moment


def write_memories(folder: Path, memories: Sequence[Memory]) -> None:
    """Write all memories."""
    _write(folder / "memories.json", [asdict(memory) for memory in memories])


def read_memories(folder: Path) -> list[Memory]:
    """Read all memories."""
    return [Memory(**memory) for memory in json.loads((folder / "memories.json").read_text())]


def write_answers(folder: Path, answers: Iterable[Answer]) -> None:
    """Write all questions with their results."""
    _write(folder / "results.json", [_answer_members(answer) for answer in answers])


def _answer_members(answer: Answer) -> dict[str, Any]:
    return {
        **asdict(answer.question),
        "characters": answer.characters,
        "within": {str(cut): answer.count_within(cut) for cut in CUTS},
        "results": [
            {**asdict(memory), "shown": memory.shown, "characters": len(memory.shown)}
            for memory in answer.found
        ],
    }


def read_answers(folder: Path) -> list[Answer]:
    """Read all questions with their results."""
    return [_read_answer(members) for members in json.loads((folder / "results.json").read_text())]


def _read_answer(members: dict[str, Any]) -> Answer:
    names = Question.__dataclass_fields__
    question = Question(**{name: members[name] for name in names})
    names = Memory.__dataclass_fields__
    found = [Memory(**{name: r[name] for name in names}) for r in members["results"]]
    return Answer(question, found)


def write_counts(folder: Path, counts: dict[str, Any]) -> None:
    """Write the counts of a run."""
    _write(folder / "counts.json", counts)


def read_counts(folder: Path) -> dict[str, Any]:
    """Read the counts of a run."""
    counts: dict[str, Any] = json.loads((folder / "counts.json").read_text())
    return counts


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
