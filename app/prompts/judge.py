"""A judge compares two answers; it is asked in both orders, because position sways judges."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from app.conversations.dialogue import Dialogue
from app.conversations.prompt_text import render_turns
from app.conversations.types import Ask, Turn
from app.json_values import replace_unstorable
from app.prompts.optimize.instructions import render_template
from app.providers.llm.base import Completion, Tool, ToolCall, ToolResult

Side: TypeAlias = Literal["old", "new"]
Preference: TypeAlias = Literal["old", "new", "tie"]

_MAX_REASON = 5_000

VERDICT = "verdict"
"""The tool that judges answer with."""

_SCHEMA: dict[str, Any] = {
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
_TAG = re.compile(
    r"<(?=[\s/]*(?:conversation|message|expected|first|second|problem)\b)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to a case; `problem` says why it is missing or incomplete."""

    text: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge sees: a conversation, what a good answer does, and the two answers."""

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
    dialogue = Dialogue(ask, render_template("judge"))
    dialogue.say(_render_request(comparison, first, second))
    problem = ""
    for _ in range(2):
        completion = await dialogue.answer("judge", [_TOOL])
        if completion.finish_reason == "refusal":
            return Verdict(first, None, "The judge refused to answer.")
        call = next((call for call in completion.calls if call.name == VERDICT), None)
        problem = _find_problem(call)
        if call is not None and call.arguments is not None and not problem:
            reason = replace_unstorable(call.arguments["reason"]).strip()[:_MAX_REASON]
            return Verdict(first, sides[call.arguments["better"]], reason)
        dialogue.say(*_repair_turn(completion, problem))
    return Verdict(first, None, f"The judge gave no verdict: {problem}.")


def _render_request(comparison: Comparison, first: Side, second: Side) -> str:
    turns = [replace(turn, text=_escape(turn.text)) for turn in comparison.turns]
    return render_template(
        "judge_request",
        conversation=render_turns(turns),
        expected=_escape(comparison.expected),
        first=_render_answer(comparison.answers[first]),
        second=_render_answer(comparison.answers[second]),
    )


def _render_answer(answer: Answer) -> str:
    note = f"<problem>{_escape(answer.problem)}</problem>" if answer.problem else ""
    return "\n".join(part for part in (_escape(answer.text), note) if part)


def _escape(text: str) -> str:
    return _TAG.sub("&lt;", text)


def _find_problem(call: ToolCall | None) -> str:
    """Return what is wrong with a judge's call; empty if it is a verdict."""
    if call is None:
        return f"the tool `{VERDICT}` was not called"
    if call.arguments is None:
        return "the arguments are not a JSON object; they may have been cut off"
    if call.arguments.get("better") not in ("first", "second", "tie"):
        return "`better` is none of first, second and tie"
    return "" if isinstance(call.arguments.get("reason"), str) else "`reason` is not a text"


def _repair_turn(completion: Completion, problem: str) -> tuple[str, list[ToolResult]]:
    """Return our turn after a reply without a verdict."""
    results = [ToolResult(call.id, f"No verdict: {problem}.", True) for call in completion.calls]
    return f"There is no verdict yet: {problem}. Call `{VERDICT}` once.", results
