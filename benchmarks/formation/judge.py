"""Files for a blind judge: the runs are called A, B, and so on, in a random order."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.formation.conversations import CATEGORIES, Conversation, Message
from benchmarks.formation.records import Answer, Memory, read_answers, read_memories

QUESTIONS_PER_FILE = 20

LISTS = [
    "partly_true",
    "false",
    "full_duplicates",
    "partial_duplicates",
    "no_date",
    "too_precise",
    "wrong",
    "doubtful",
]
"""Lists of memories that a judge fills in for each run."""

INSTRUCTIONS = """# Judge the memories

Several systems read the conversation in `conversation.md` and kept memories of it. You do not know
which system is which, and you should not try to find out. Fill in `judge.json`: replace every null,
and add to the lists. Judge by the conversation alone, and all runs by the same measure.

{facts}

1. `facts`: for each run, is the fact in its memories (`memories-*.md`)? `exact`: with all details;
   `vague`: in part, or without a name, number, or date that the conversation gives; `missing`.
2. `questions` (`questions-*.md`): can the question be answered from the results of the run?
   `answer` is `yes`, `partly`, or `no`. Results are ordered, best first. `complete_at` is the
   number of the result with which the answer is as complete as it gets: 1 if the first result is
   enough; 0 for `no`. A question for a date needs the date, or words from which it follows
   together with a date that is shown.
3. `memories`: by their numbers, those that are `partly_true` or `false`; `full_duplicates`, groups
   of memories such as [3, 17] of which one says everything that the others say;
   `partial_duplicates`, groups that share a fact without that. A memory without a date of any kind,
   in its text or in brackets, belongs to `no_date`. Memories with "valid from" whose date is more
   precise than the conversation: `too_precise`; wrong: `wrong`; if you cannot decide: `doubtful`.
4. `unwanted`: things that no memory may hold: `absent`, `partly`, or `kept`.
"""

GIVEN_FACTS = "The facts are given in `judge.json`."

NO_FACTS = """Before you open any other file, read the conversation and list the facts that an agent
should know months later (for a long conversation about 90), as {"fact": "…"} in `facts` of
`judge.json`, each with a null for every run: {"fact": "…", "A": null, "B": null}."""


def prepare(
    folder: Path, runs: Sequence[Path], conversation: Conversation, facts: Sequence[str]
) -> None:
    """Write the judge's files into `folder`/judge, and the key to the letters into `folder`."""
    judge, key = folder / "judge", _letters(folder, runs)
    judge.mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_text(json.dumps({a: str(run) for a, run in key.items()}, indent=1))
    given = facts or conversation.facts
    instructions = INSTRUCTIONS.replace("{facts}", GIVEN_FACTS if given else NO_FACTS)
    (judge / "judge.md").write_text(instructions)
    (judge / "conversation.md").write_text(_conversation(conversation))
    for letter, run in key.items():
        (judge / f"memories-{letter}.md").write_text(_memories(letter, read_memories(run)))
    answers = {letter: read_answers(run) for letter, run in key.items()}
    _write_questions(judge, answers, conversation.messages)
    verdict = judge / "judge.json"
    if not verdict.exists():  # a verdict may have entries already
        template = _template(list(key), answers, given, conversation)
        verdict.write_text(json.dumps(template, indent=1, ensure_ascii=False) + "\n")


def _letters(folder: Path, runs: Sequence[Path]) -> dict[str, Path]:
    known = folder / "key.json"
    if known.exists():
        return {letter: Path(run) for letter, run in json.loads(known.read_text()).items()}
    shuffled = [run.resolve() for run in runs]
    random.SystemRandom().shuffle(shuffled)
    return {chr(ord("A") + number): run for number, run in enumerate(shuffled)}


def _template(
    letters: Sequence[str],
    answers: Mapping[str, Sequence[Answer]],
    facts: Sequence[str],
    conversation: Conversation,
) -> dict[str, Any]:
    nothing = dict.fromkeys(letters)
    return {
        "facts": [{"fact": fact, **nothing} for fact in facts],
        "questions": [
            {
                "question": answer.question.number,
                **{letter: {"answer": None, "complete_at": None} for letter in letters},
            }
            for answer in answers[letters[0]]
        ],
        "memories": {letter: {name: [] for name in LISTS} for letter in letters},
        "unwanted": [{"unwanted": u.description, **nothing} for u in conversation.unwanted],
    }


def _conversation(conversation: Conversation) -> str:
    parts = []
    for session in conversation.sessions:
        parts.append(f"# Session {session.name}, {session.messages[0].said_at:%A, %Y-%m-%d %H:%M}")
        parts += [f"{m.id} {m.speaker}: {m.text}" for m in session.messages]
    return "\n\n".join(parts) + "\n"


def _memories(letter: str, memories: Sequence[Memory]) -> str:
    lines = [f"{number}. {_line(memory)}" for number, memory in enumerate(memories, start=1)]
    return "\n".join([f"# Memories of run {letter}\n", *lines]) + "\n"


def _line(memory: Memory) -> str:
    return memory.shown.replace("\n", " / ")


def _write_questions(
    folder: Path, answers: Mapping[str, Sequence[Answer]], messages: Mapping[str, Message]
) -> None:
    numbers = range(len(next(iter(answers.values()))))
    parts = [
        _question({letter: given[n] for letter, given in answers.items()}, messages)
        for n in numbers
    ]
    for start in range(0, len(parts), QUESTIONS_PER_FILE):
        text = "\n\n".join(parts[start : start + QUESTIONS_PER_FILE])
        (folder / f"questions-{start // QUESTIONS_PER_FILE + 1}.md").write_text(text + "\n")


def _question(answers: Mapping[str, Answer], messages: Mapping[str, Message]) -> str:
    question = next(iter(answers.values())).question
    lines = [
        f"# Question {question.number} ({CATEGORIES[question.category]}): {question.text}\n",
        f"Answer: {question.answer}\n",
    ]
    for message in (messages[id_] for id_ in question.evidence):
        lines.append(f"> {message.said_at:%Y-%m-%d} {message.speaker}: {message.text}\n")
    for letter, answer in answers.items():
        lines.append(f"\n## Run {letter}, question {question.number}\n")
        lines += [f"{n}. {_line(memory)}" for n, memory in enumerate(answer.found, start=1)]
    return "\n".join(lines)
