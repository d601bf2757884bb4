"""The formation benchmark: its conversation is complete, its counts and tables are right."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.formation.conversations import (
    OURS,
    Conversation,
    Message,
    Question,
    Session,
    Unwanted,
    load,
)
from benchmarks.formation.counts import find_groups, find_unwanted, has_date, judge_valid_from
from benchmarks.formation.dates import find_dates
from benchmarks.formation.judge import prepare
from benchmarks.formation.records import (
    Answer,
    Memory,
    read_answers,
    read_memories,
    write_answers,
    write_counts,
    write_memories,
)
from benchmarks.formation.score import IncompleteVerdictError, score

SAID = datetime(2025, 4, 12, 10, 5, tzinfo=UTC)


def conversation() -> Conversation:
    messages = [Message("D1:1", "Ana", "user", "I moved on Friday.", SAID, {})]
    questions = [
        Question(3, "When did Ana move?", "11 April 2025", 2, ["D1:1"]),
        Question(8, "Who moved?", "Ana", 4, ["D1:1"]),
    ]
    return Conversation(
        "c", [Session("1", messages)], questions, ["Ana moved"], [Unwanted("The code", ["77-1"])]
    )


def test_our_conversation_is_complete() -> None:
    ours = load(OURS, None)
    messages = ours.messages
    said = " ".join(message.text for message in messages.values()).lower()
    assert len(ours.sessions) == 5
    assert 55 <= len(messages) == sum(len(session.messages) for session in ours.sessions)
    assert len(ours.questions) >= 25
    assert all(messages.keys() >= set(question.evidence) for question in ours.questions)
    speakers = {message.speaker for message in messages.values() if message.role == "user"}
    assert len(speakers) == 3
    assert {message.role for message in messages.values()} == {"user", "assistant", "tool"}
    for unwanted in ours.unwanted:
        assert any(string.lower() in said for string in unwanted.strings), unwanted
        for answer in (question.answer for question in ours.questions):
            assert not any(string.lower() in answer.lower() for string in unwanted.strings)


def test_sessions_that_are_left_out_take_their_questions_along() -> None:
    first = load(OURS, "boathouse", sessions=1)
    assert len(first.sessions) == 1
    assert 0 < len(first.questions) < len(load(OURS, None).questions)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Born on 3rd of March 1990, moved 2022-07.", ["1990-03-03", "2022-07"]),
        ("On July 4, 2021 and in Aug. 2023", ["2021-07-04", "2023-08"]),
        ("Am 9. März 2024, seit Mai 2019", ["2024-03-09", "2019-05"]),
        ("昨年ではなく2024年11月3日、2023年5月、2020年", ["2024-11-03", "2023-05", "2020"]),
        ("in May, at 1900 euros, for 20250 people", ["1900"]),
        ("2026-02-03T10:00:00", ["2026-02-03"]),
    ],
)
def test_dates_in_texts(text: str, expected: list[str]) -> None:
    assert find_dates(text) == expected


@pytest.mark.parametrize(
    ("text", "valid_from", "expected"),
    [
        ("Ana moved on 11 April 2025.", "2025-04-11T00:00:00+00:00", "as in the text"),
        ("Ana moved on 11 April 2025.", "2025-04", "as in the text"),
        ("Ana moved in April 2025.", "2025-04-01", "more precise than the text"),
        ("Ana has moved.", "2025-04-12", "day of a message"),
        ("Ana has moved.", "2025-04-10", "not in the text"),
        ("Ana has moved.", None, "none"),
    ],
)
def test_valid_from_is_compared_with_the_text(
    text: str, valid_from: str | None, expected: str
) -> None:
    memory = Memory("k", text, {}, valid_from=valid_from, evidence=["D1:1"])
    assert judge_valid_from(memory, conversation()) == expected


def test_counts_of_memories() -> None:
    texts = ["Ana moved.", "In 2025, Ana moved.", "The code is 77-1."]
    memories = [Memory(str(n), text, {}) for n, text in enumerate(texts)]
    assert [has_date(memory) for memory in memories] == [False, True, False]
    assert has_date(Memory("k", "Ana moved.", {}, said_first="2025-04-12T10:05:00Z"))
    assert find_unwanted(conversation(), memories) == {"The code": [3]}
    pairs = np.eye(5, dtype=bool)
    pairs[0, 3] = pairs[3, 0] = pairs[3, 4] = pairs[4, 3] = True
    assert find_groups(pairs) == [[1, 4, 5]]


def write_run(folder: Path, texts: list[str], said: str | None = None) -> Path:
    memories = [Memory(str(n), text, {}, said_first=said) for n, text in enumerate(texts)]
    answers = [Answer(question, memories) for question in conversation().questions]
    write_memories(folder, memories)
    write_answers(folder, answers)
    none = Counter({"none": len(texts)})
    counts = {"memories": len(texts), "mean_characters": 10, "characters_returned": 1_234.6}
    write_counts(folder, {**counts, "valid_from": none})
    assert read_memories(folder) == memories
    assert read_answers(folder) == answers
    return folder


def test_a_judge_sees_no_names_and_the_table_names_the_runs(tmp_path: Path) -> None:
    long = "Ana moved on 11 April 2025, " + "which all of us know, " * 80
    runs = [
        write_run(tmp_path / "new", ["Ana moved on 11 April 2025."], said="2025-04-12"),
        write_run(tmp_path / "old", ["Ana moved.", long]),
    ]
    folder = tmp_path / "judged"
    prepare(folder, runs, conversation(), [])
    judge = folder / "judge"
    files = {path.name: path.read_text() for path in judge.iterdir()}
    assert "questions-1.md" in files
    assert not any(str(run) in text for text in files.values() for run in runs)
    with pytest.raises(IncompleteVerdictError, match="question 3, A"):
        score(folder)
    key = json.loads((folder / "key.json").read_text())
    verdict = json.loads(files["judge.json"])
    letters = {Path(run).name: letter for letter, run in key.items()}
    fill_in(verdict, letters["new"], answer="yes", complete_at=1, fact="exact", code="absent")
    fill_in(verdict, letters["old"], answer="yes", complete_at=2, fact="vague", code="kept")
    verdict["memories"][letters["old"]]["no_date"] = [1]
    (judge / "judge.json").write_text(json.dumps(verdict))
    prepare(folder, runs, conversation(), [])  # again: a verdict and the letters stay
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in score(folder).split("\n")]
    table = {name: values for name, *values in rows}
    assert table[""] == ["new", "old"]
    assert table["memories; mean characters"] == ["1; 10", "2; 10"]
    assert table["2 questions: yes / partly / no"] == ["2 / 0 / 0", "2 / 0 / 0"]
    assert table["yes within the first 1,200 characters"] == ["2", "0"]
    assert table["yes within the first 2,300 characters"] == ["2", "2"]
    assert table["complete in the first result / first three"] == ["2 / 2", "0 / 2"]
    assert table["questions for a date (1): yes"] == ["1", "1"]
    assert table["1 facts: exact / vague / missing"] == ["1 / 0 / 0", "0 / 1 / 0"]
    assert table["unwanted: absent / partly / kept"] == ["1 / 0 / 0", "0 / 0 / 1"]
    assert table["no date anywhere"] == ["0", "1"]


def fill_in(
    verdict: Any, letter: str, *, answer: str, complete_at: int, fact: str, code: str
) -> None:
    for entry in verdict["facts"]:
        entry[letter] = fact
    for entry in verdict["questions"]:
        entry[letter] = {"answer": answer, "complete_at": complete_at}
    for entry in verdict["unwanted"]:
        entry[letter] = code
