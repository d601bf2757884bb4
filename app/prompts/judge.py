"""A judge compares two answers; it is asked in both orders, because position sways judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from typing_extensions import override

from app.conversations.dialogue import (
    AnswerTool,
    Ask,
    BadAnswerError,
    Dialogue,
    NoAnswerError,
    RefusalError,
    Repair,
    StructuredDialogue,
)
from app.conversations.messages import Turn
from app.conversations.prompt_text import Tags, render_turns
from app.json_values import JsonObject, replace_unstorable
from app.prompts.optimize.render import TEMPLATES
from app.providers.llm import Completion, Tool

Side: TypeAlias = Literal["old", "new"]
Preference: TypeAlias = Literal["old", "new", "tie"]

_MAX_REASON = 5_000

VERDICT = "verdict"
"""The tool that judges answer with."""

_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "reason": {
            "type": "string",
            "description": "What tells the answers apart, measured by <expected>; briefly.",
        },
        "better": {
            "enum": ["first", "second", "tie"],
            "description": "The better answer; tie where neither is.",
        },
    },
    "required": ["reason", "better"],
    "additionalProperties": False,
}
_TOOL = Tool(VERDICT, "Says which answer is better, and why.", _SCHEMA)

# Every tag that these templates give a meaning to.
_TAGS = Tags("conversation", "message", "expected", "first", "second", "problem")


class _VerdictRepair(Repair):
    result = "No verdict"

    @override
    def turn(self, tool: str, reply: Completion, error: BadAnswerError) -> str:
        return f"There is no verdict yet: {error}. Call `{tool}` once."


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to a case; `problem` says why it is missing or incomplete."""

    text: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The judge's view: a conversation, a description of a good answer, and the two answers."""

    turns: Sequence[Turn]
    expected: str
    answers: Mapping[Side, Answer]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict; the answer of the prompt `shown_first` was shown first.

    `preferred` is None if the judge reached no verdict; then `reason` says why.
    """

    shown_first: Side
    preferred: Preference | None
    reason: str


async def judge(ask: Ask, comparison: Comparison, first: Side) -> Verdict:
    """Return the verdict on two answers; raises the errors of asking the model."""
    second: Side = "new" if first == "old" else "old"
    sides: dict[object, Preference] = {"first": first, "second": second, "tie": "tie"}

    def parse(arguments: JsonObject) -> Verdict:
        better, reason = arguments.get("better"), arguments.get("reason")
        if better not in ("first", "second", "tie"):
            raise BadAnswerError("`better` is none of first, second and tie")
        if not isinstance(reason, str):
            raise BadAnswerError("`reason` is not a text")
        return Verdict(first, sides[better], replace_unstorable(reason).strip()[:_MAX_REASON])

    dialogue = Dialogue(ask, TEMPLATES.fill("judge"))
    dialogue.say(_render_request(comparison, first, second))
    answer_tool = AnswerTool(_TOOL, parse, _VerdictRepair())
    try:
        return await StructuredDialogue(dialogue, answer_tool, "judge", "judge").answer()
    except RefusalError:
        return Verdict(first, None, "The judge refused to answer.")
    except NoAnswerError as error:
        return Verdict(first, None, f"The judge gave no verdict: {error}.")


def _render_request(comparison: Comparison, first: Side, second: Side) -> str:
    turns = [replace(turn, text=_TAGS.escape(turn.text)) for turn in comparison.turns]
    return TEMPLATES.fill(
        "judge_request",
        conversation=render_turns(turns),
        expected=_TAGS.escape(comparison.expected),
        first=_render_answer(comparison.answers[first]),
        second=_render_answer(comparison.answers[second]),
    )


def _render_answer(answer: Answer) -> str:
    note = f"<problem>{_TAGS.escape(answer.problem)}</problem>" if answer.problem else ""
    return "\n".join(part for part in (_TAGS.escape(answer.text), note) if part)
