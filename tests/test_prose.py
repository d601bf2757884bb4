"""Docstrings, comments, messages, and pages are in plain English; modules are named by nouns."""

from pathlib import Path

import pytest

from tests.support.prose import ROOT, findings

PAGES = ["docs", "README.md", "CONTRIBUTING.md"]
PACKAGES = [f"app/{path.name}" for path in sorted((ROOT / "app").iterdir())]

EXCEPTIONS: set[tuple[str, str]] = {
    ("app/conversations/kinds.py", ""),  # sent to models
    ("app/extraction/retrieval.py", "What a memory might say"),  # sent to models
    ("app/prompts/evaluation.py", "What tells the answers apart"),  # sent to models
    ("app/threads/summary_task.py", "What"),  # sent to models
    ("app/tools/tool.py", "forgotten meanwhile"),  # sent to models
    ("app/tools/memories.py", "is to be remembered"),  # sent to models
    ("app/tools/memory_schemas.py", ""),  # sent to models
}
"""Pairs of a file and a part of the text that breaks a rule on purpose; at most 20."""

GERUNDS_THAT_ARE_NOUNS = {"embeddings", "indexing", "logging", "routing", "string", "scoring"}


@pytest.mark.parametrize("place", sorted({*PACKAGES, *PAGES}))
def test_prose_is_plain_english(place: str) -> None:
    found = [str(finding) for finding in findings([ROOT / place])]
    assert not [text for text in found if not is_exception(text)]


def is_exception(finding: str) -> bool:
    return any(finding.startswith(path) and text in finding for path, text in EXCEPTIONS)


def test_exceptions_are_few() -> None:
    assert len(EXCEPTIONS) <= 20


def gerunds() -> list[Path]:
    names = [path for path in (ROOT / "app").rglob("*") if path.suffix == ".py" or path.is_dir()]
    return [p for p in names if p.stem.endswith("ing") and p.stem not in GERUNDS_THAT_ARE_NOUNS]


def test_no_module_is_named_with_a_gerund() -> None:
    assert not gerunds()
