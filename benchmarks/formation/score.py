"""The verdict of a judge as a table for docs/explanation/performance.md."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.formation.conversations import TEMPORAL
from benchmarks.formation.records import CUTS, LIMIT, Answer, read_answers, read_counts

ANSWERS = ("yes", "partly", "no")
FACTS = ("exact", "vague", "missing")
UNWANTED = ("absent", "partly", "kept")


class IncompleteVerdictError(Exception):
    """A verdict lacks an entry, or has one that is none of the permitted words."""


def score(folder: Path) -> str:
    """Return the table of a judged comparison, in Markdown; raises IncompleteVerdictError."""
    verdict = json.loads((folder / "judge" / "judge.json").read_text())
    key = {
        letter: Path(run) for letter, run in json.loads((folder / "key.json").read_text()).items()
    }
    letters = sorted(key, key=lambda letter: key[letter].name)
    if faults := list(find_faults(verdict, letters)):
        raise IncompleteVerdictError("\n".join(faults))
    columns = [_column(verdict, letter, key[letter]) for letter in letters]
    lines = ["| | " + " | ".join(key[letter].name for letter in letters) + " |"]
    lines.append("| --- |" + " --- |" * len(letters))
    for row in columns[0]:
        lines.append(f"| {row} | " + " | ".join(column[row] for column in columns) + " |")
    return "\n".join(lines)


def find_faults(verdict: Mapping[str, Any], letters: Sequence[str]) -> Iterator[str]:
    """Yield a line for every entry that the judge has still to fill in or to correct."""
    for letter in letters:
        for number, entry in enumerate(verdict["facts"], start=1):
            if entry.get(letter) not in FACTS:
                yield f"facts, entry {number}, {letter}: {entry.get(letter)}; write one of {FACTS}"
        for entry in verdict["unwanted"]:
            if entry.get(letter) not in UNWANTED:
                yield f"unwanted, {entry['unwanted']}, {letter}: write one of {UNWANTED}"
        for entry in verdict["questions"]:
            if not _is_valid(**entry[letter]):
                yield f"question {entry['question']}, {letter}: {json.dumps(entry[letter])}"


def _is_valid(answer: str | None, complete_at: int | None) -> bool:
    if answer == "no":
        return complete_at == 0
    return answer in ANSWERS and complete_at is not None and 1 <= complete_at <= LIMIT


def _column(verdict: Mapping[str, Any], letter: str, run: Path) -> dict[str, str]:
    counts = read_counts(run)
    return {
        "memories; mean characters": f"{counts['memories']}; {counts['mean_characters']:.0f}",
        **_truth(verdict["memories"][letter], counts["memories"]),
        **_answers(verdict["questions"], letter, read_answers(run)),
        f"{len(verdict['facts'])} facts: exact / vague / missing": _shares(
            (entry[letter] for entry in verdict["facts"]), FACTS
        ),
        **_dates(verdict["memories"][letter], counts),
        "groups of full duplicates; of partial duplicates": "; ".join(
            str(len(verdict["memories"][letter][name]))
            for name in ("full_duplicates", "partial_duplicates")
        ),
        "unwanted: absent / partly / kept": _shares(
            (entry[letter] for entry in verdict["unwanted"]), UNWANTED
        ),
        "characters returned per question": f"{counts['characters_returned']:,.0f}",
    }


def _truth(judged: Mapping[str, Any], memories: int) -> dict[str, str]:
    partly, false = len(judged["partly_true"]), len(judged["false"])
    return {
        "true / partly true / false": f"{memories - partly - false} / {partly} / {false}",
    }


def _answers(
    entries: Sequence[Mapping[str, Any]], letter: str, answers: Sequence[Answer]
) -> dict[str, str]:
    by_number = {answer.question.number: answer for answer in answers}
    judged = [(entry[letter], by_number[entry["question"]]) for entry in entries]

    def count_yes(applies: Callable[[int, Answer], bool]) -> int:
        complete = ((v["complete_at"], a) for v, a in judged if v["answer"] == "yes")
        return sum(applies(at, answer) for at, answer in complete)

    asked = [answer for _, answer in judged if answer.question.category == TEMPORAL]
    dated = count_yes(lambda _, answer: answer.question.category == TEMPORAL)
    within = {
        f"yes within the first {cut:,} characters": str(
            count_yes(lambda at, answer, cut=cut: at <= answer.count_within(cut))  # type: ignore[misc]
        )
        for cut in CUTS
    }
    return {
        f"{len(judged)} questions: yes / partly / no": _shares(
            (v["answer"] for v, _ in judged), ANSWERS
        ),
        **within,
        "complete in the first result / first three": " / ".join(
            str(count_yes(lambda at, _, first=first: at <= first))  # type: ignore[misc]
            for first in (1, 3)
        ),
        f"questions for a date ({len(asked)}): yes": str(dated),
    }


def _dates(judged: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, str]:
    faults = [len(judged[name]) for name in ("too_precise", "wrong", "doubtful")]
    given = counts["memories"] - counts["valid_from"].get("none", 0)
    return {
        "no date anywhere": str(len(judged["no_date"])),
        "`valid_from`: right / too precise / wrong / doubtful": " / ".join(
            map(str, [given - sum(faults), *faults])
        ),
    }


def _shares(words: Iterator[str], order: Sequence[str]) -> str:
    found = Counter(words)
    return " / ".join(str(found[word]) for word in order)
