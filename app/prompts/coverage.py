"""Coverage: the failures that a new text is to prevent, and the cases that test for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.conversations.dialogue import (
    AnswerTool,
    Ask,
    BadAnswerError,
    Dialogue,
    NoAnswerError,
    StructuredDialogue,
)
from app.conversations.prompt_text import Tags
from app.json_values import JsonObject, replace_unstorable
from app.prompts.evaluation import Case
from app.prompts.optimizer_answers import REPAIR, define_tool
from app.prompts.optimizer_requests import TEMPLATES, cut_middle
from app.providers.errors import BadRequestError

_MAX_ANALYSIS = 20_000
_MAX_PART = 2_000  # of a case's last message, and of its description
_MAX_FAILURES = 30
_MAX_DESCRIPTION = 500

_TAGS = Tags("analysis", "cases", "case", "message", "expected")


def _define_failures() -> JsonObject:
    failure = {"type": "string", "description": TEMPLATES.fill_section("coverage", "failure")}
    tested_by = {
        "type": "array",
        "items": {"type": "integer"},
        "description": TEMPLATES.fill_section("coverage", "tested_by"),
    }
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"failure": failure, "tested_by": tested_by},
            "required": ["failure", "tested_by"],
            "additionalProperties": False,
        },
        "description": TEMPLATES.fill_section("coverage", "failures"),
    }


_TOOL = define_tool("coverage", failures=_define_failures())


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that a new text is to prevent, and the positions of the cases that test for it."""

    description: str
    cases: Sequence[int]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The failures, at least one, that the cases of an evaluation should test for."""

    failures: Sequence[Failure]

    @property
    def tested(self) -> int:
        """The number of failures that some case tests for."""
        return sum(bool(failure.cases) for failure in self.failures)

    @property
    def warning(self) -> str | None:
        """A remark if the cases test for few of the failures, at most half; otherwise None."""
        if 2 * self.tested > len(self.failures):
            return None
        if not self.tested:
            return "no case tests for a failure that the new text is to prevent; add cases that do"
        return (
            f"the cases test for {self.tested} of the {len(self.failures)} failures that the new "
            "text is to prevent; add cases for the others"
        )


async def find_coverage(ask: Ask, analysis: str, cases: Sequence[Case]) -> Coverage | None:
    """Return the failures that an analysis names, and the cases that test for each.

    None if it names none, or if the model gives no usable answer. Raises the other
    errors of asking it.
    """
    dialogue = Dialogue(ask, TEMPLATES.fill_section("coverage", "system"))
    dialogue.say(_render_request(analysis, cases))

    def parse(arguments: JsonObject) -> list[Failure]:
        return _parse_failures(arguments.get("failures"), len(cases))

    answer_tool = AnswerTool(_TOOL, parse, REPAIR)
    try:
        failures = await StructuredDialogue(dialogue, answer_tool, "coverage").answer()
    except (NoAnswerError, BadRequestError):
        return None  # the evaluation holds without it
    return Coverage(failures) if failures else None


def _render_request(analysis: str, cases: Sequence[Case]) -> str:
    shown = [
        _TAGS.block(
            "case",
            "\n".join(
                _TAGS.block(tag, _TAGS.escape(cut_middle(text, _MAX_PART)))
                for tag, text in (("message", case.turns[-1].text), ("expected", case.expected))
            ),
            {"number": str(number)},
        )
        for number, case in enumerate(cases, start=1)
    ]
    return "\n\n".join(
        (
            _TAGS.block("analysis", _TAGS.escape(cut_middle(analysis, _MAX_ANALYSIS))),
            _TAGS.block("cases", "\n".join(shown)),
            TEMPLATES.fill_section("coverage", "turn"),
        )
    )


def _parse_failures(given: object, cases: int) -> list[Failure]:
    if not isinstance(given, list):
        raise BadAnswerError("failures must be a list")
    failures = []
    for entry in given[:_MAX_FAILURES]:
        match entry:
            case {"failure": str(description), "tested_by": list(numbers)}:
                text = replace_unstorable(description).strip()[:_MAX_DESCRIPTION]
                tested_by = [n - 1 for n in range(1, cases + 1) if n in numbers]
                failures.append(Failure(text, tested_by))
            case _:
                raise BadAnswerError("each entry of failures needs failure and tested_by")
    return failures
