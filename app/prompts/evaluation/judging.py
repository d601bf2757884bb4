"""Which of two answers a judge finds better; asked in both orders, as places sway judges."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from app.conversations.dialogue import Dialogue
from app.conversations.prompt_text import render_turns
from app.conversations.types import Ask
from app.json_values import replace_unstorable
from app.prompts.evaluation.answering import Answer
from app.prompts.evaluation.cases import Case
from app.prompts.optimizing.instructions import filled
from app.providers.llm.base import Completion, Tool, ToolCall, ToolResult

Side: TypeAlias = Literal["old", "new"]
Winner: TypeAlias = Literal["old", "new", "tie"]

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
class Verdict:
    """What a judge said who was shown the answer with one of the prompts `first`.

    `preferred` is None where it came to no verdict; `reason` says why then.
    """

    shown_first: Side
    preferred: Winner | None
    reason: str


async def judge(ask: Ask, case: Case, answers: Mapping[Side, Answer], first: Side) -> Verdict:
    """Return the verdict on two answers; raises what `ask` raises."""
    second: Side = "new" if first == "old" else "old"
    sides: dict[object, Winner] = {"first": first, "second": second, "tie": "tie"}
    dialogue = Dialogue(ask, filled("judge"))
    dialogue.say(_request(case, answers[first], answers[second]))
    problem = ""
    for _ in range(2):
        completion = await dialogue.answer("judge", [_TOOL])
        if completion.finish_reason == "refusal":
            return Verdict(first, None, "The judge refused to answer.")
        call = next((call for call in completion.calls if call.name == VERDICT), None)
        problem = _problem(call)
        if call is not None and call.arguments is not None and not problem:
            reason = replace_unstorable(call.arguments["reason"]).strip()[:_MAX_REASON]
            return Verdict(first, sides[call.arguments["better"]], reason)
        dialogue.say(*_sent_back(completion, problem))
    return Verdict(first, None, f"The judge gave no verdict: {problem}.")


def _request(case: Case, first: Answer, second: Answer) -> str:
    turns = [replace(turn, text=_escaped(turn.text)) for turn in case.turns]
    return filled(
        "judge_request",
        conversation=render_turns(turns),
        expected=_escaped(case.expected),
        first=_shown(first),
        second=_shown(second),
    )


def _shown(answer: Answer) -> str:
    note = f"<problem>{_escaped(answer.problem)}</problem>" if answer.problem else ""
    return "\n".join(part for part in (_escaped(answer.text), note) if part)


def _escaped(text: str) -> str:
    return _TAG.sub("&lt;", text)


def _problem(call: ToolCall | None) -> str:
    """Return what is wrong with a judge's call; nothing if it is a verdict."""
    if call is None:
        return f"the tool `{VERDICT}` was not called"
    if call.arguments is None:
        return "the arguments are not a JSON object; they may have been cut off"
    if call.arguments.get("better") not in ("first", "second", "tie"):
        return "`better` is none of first, second and tie"
    return "" if isinstance(call.arguments.get("reason"), str) else "`reason` is not a text"


def _sent_back(completion: Completion, problem: str) -> tuple[str, list[ToolResult]]:
    """Return our turn after an answer that is no verdict."""
    results = [ToolResult(call.id, f"No verdict: {problem}.", True) for call in completion.calls]
    return f"There is no verdict yet: {problem}. Call `{VERDICT}` once.", results
