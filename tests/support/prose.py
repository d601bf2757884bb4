"""Patterns that are not plain English, and the places where the project's prose has them.

`python -m tests.support.prose app/store docs` lists them for some folders.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

ROOT = Path(__file__).resolve().parents[2]

_BRITISH = (
    r"\b(?!(?:\w*(?:[rp]ais|promis|compris|surpris|exercis|pr[ae]cis|concis|revis|advis|nois|"
    r"premis|wis|ris|guis|enterpris|vis|expertis|pois|dis|chais|franchis)(?:e|es|ed|er|ers|ing))\b)"
    r"\w{3,}is(?:e|es|ed|ing|ation|ations|er|ers)\b"
    r"|\b(?:behaviour|colour|favour|honour|neighbour|labour)\w*"
    r"|\b(?:licence|centre|catalogue|judgement|labelled|modelled|travelled|learnt|spelt|whilst)\b"
)

RULES = {
    'a headless "what …": name the thing': (
        r"\A\s*#?\s*What (?![^.?]*\?)"
        r"|\b(?:of|to|with|from|for|by|about|than|and|or|in|on|into|after|before|raises?|Raises?|"
        r"returns?|Return) what\b(?! (?:to|if|kind|went wrong|is wrong)\b)"
    ),
    'a fragment that begins with "Of …" or "Who …"': r"\A\s*#?\s*(?:Of|Who|Whom|Whose) ",
    '"where" for if or when': (
        r"\b[Ww]here (?:there (?:is|are|was|were)|nothing|none|no|anything|any|one is|"
        r"(?:it|they|he|she) (?:has|have|had|gives?|names?|does|do|did)|not)\b"
    ),
    '"come to" or "become of" for a result': (
        r"\b(?:becomes?|became|comes?|came) of\b"
        r"|\b(?:comes?|came) to (?:nothing|be)\b|\bhow far \w+ (?:came|comes)\b"
    ),
    '"tell" or "told" for report, state, return': (
        r"\b(?:is|are|was|were|be|been|not) told\b|\btold (?:as|that|of|by|so)\b"
        r"|\b[Tt]ells? (?:of|what|whether|that|which|when|how|those|them|most)\b"
    ),
    "a person for software: name the client, caller, process, or transaction": (
        r"\b(?:[Ss]ome|[Nn]o|[Aa]ny|[Ee]very)body\b|\b[Ww]hoever\b"
    ),
    '"is to be"': r"\b(?:is|are|was|were) to be\b",
    "a dated or literary word": (
        r"\b(?:anew|meanwhile|reckon\w*|mend(?:s|ed|ing)?|for ever|lends?|lent|begun|by now|"
        r"hitherto|whereby|aught|naught|heed\w*|beside)\b"
    ),
    '"so many" or "some 100" for a number': r"\bso (?:many|long|much)\b(?! as| that)|\bsome [\d{]",
    '"as X has it"': r"\bas \S+ (?:has|have|had) (?:it|them)\b",
    "British spelling": _BRITISH,
    'one word for one act: "extract", not form or learn': (
        r"\b[Ff]orm(?:s|ed|ing)? memor|\b[Ll]earn(?:s|ed|ing)? (?:from|memor)"
    ),
}
_RULES = {name: re.compile(pattern) for name, pattern in RULES.items()}
_CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|https?://\S+", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """A place that breaks a rule."""

    path: Path
    line: int
    rule: str
    text: str

    @override
    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.rule}: …{self.text}…"


def findings(paths: Sequence[Path]) -> Iterator[Finding]:
    """Yield what breaks the rules in Python files and pages at or below the paths."""
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix == ".py":
                yield from _in_texts(file, _texts(file.read_text("utf-8")))
            elif file.suffix == ".md" and "templates" not in file.parts:
                yield from _in_texts(file, _lines(file.read_text("utf-8")))


def _in_texts(file: Path, texts: Iterator[tuple[int, str]]) -> Iterator[Finding]:
    for line, text in texts:
        for rule, pattern in _RULES.items():
            if found := pattern.search(text):
                start, end = max(0, found.start() - 30), found.end() + 30
                yield Finding(file, line, rule, " ".join(text[start:end].split()))


def _texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings, comments, and sentences among the strings of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, _CODE.sub("", node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], _CODE.sub("", token.string)


def _lines(page: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page without its code."""
    prose = _CODE.sub(lambda code: "\n" * code[0].count("\n"), page)
    yield from enumerate(prose.splitlines(), start=1)


if __name__ == "__main__":
    for found in findings([Path(name).resolve() for name in sys.argv[1:]]):
        sys.stdout.write(f"{found}\n")
