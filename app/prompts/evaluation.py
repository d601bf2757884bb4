"""Evaluations of a new text: models answer cases with both texts, and a judge compares the answers.

The judge is asked in both orders, because position sways judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from typing_extensions import override

from app.background import run_together
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
from app.errors import InvalidRequestError
from app.json_values import JsonObject, replace_unstorable
from app.prompts.optimizer_requests import TEMPLATES
from app.prompts.texts import render_prompt
from app.providers.errors import BadRequestError
from app.providers.llm import Completion, Message, Request, Tool

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
            "type": "string",
            "enum": ["first", "second", "tie"],
            "description": "The better answer; tie where neither is.",
        },
        "meets_expected": {
            "type": "boolean",
            "description": "True if the better answer does everything that <expected> says; in a "
            "tie, if both do.",
        },
    },
    "required": ["reason", "better", "meets_expected"],
    "additionalProperties": False,
}
_TOOL = Tool(VERDICT, "Says which answer is better, and why.", _SCHEMA)

# Every tag that these templates give a meaning to.
_TAGS = Tags("conversation", "message", "expected", "first", "second", "problem")

Outcome: TypeAlias = Literal["win", "loss", "tie"]

SAME = "The answers are the same."

_MAX_ANSWER_CHARACTERS = 200_000


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

    `preferred` is None if the judge reached no verdict; then `reason` says why. `meets_expected`
    is None if the judge did not say; in a tie, it is about both answers.
    """

    shown_first: Side
    preferred: Preference | None
    reason: str
    meets_expected: bool | None = None


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
        meets = arguments.get("meets_expected")
        return Verdict(
            first,
            sides[better],
            replace_unstorable(reason).strip()[:_MAX_REASON],
            meets if isinstance(meets, bool) else None,
        )

    dialogue = Dialogue(ask, TEMPLATES.fill("judge"))
    dialogue.say(_render_request(comparison, first, second))
    answer_tool = AnswerTool(_TOOL, parse, _VerdictRepair())
    try:
        return await StructuredDialogue(dialogue, answer_tool, "judge", "judge").answer()
    except RefusalError:
        return Verdict(first, None, "The judge refused to answer.")
    except NoAnswerError as error:
        return Verdict(first, None, f"The judge gave no verdict: {error.reason}.")


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


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation that waits for an answer; `expected` says what a good one does."""

    turns: Sequence[Turn]
    expected: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that a model continues; adjacent turns of one side are one message."""
        messages: list[Message] = []
        for turn in self.turns:
            text, side = _message_text(turn), _side_of(turn)
            if messages and side == messages[-1].role:
                text = f"{messages.pop().text}\n\n{text}"
            messages.append(Message(side, text))
        return tuple(messages)


@dataclass(frozen=True, slots=True)
class Trial:
    """Answers and verdicts for one case; `outcome` is the new prompt's."""

    answers: dict[Side, Answer]
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """Win or loss only if the verdicts in both orders agree."""
        preferences = {verdict.preferred for verdict in self.verdicts}
        if preferences == {"new"}:
            return "win"
        return "loss" if preferences == {"old"} else "tie"

    @property
    def meets_expected(self) -> bool | None:
        """True if both verdicts say that the winner does all that is expected.

        None if no answer won, or if a verdict does not say.
        """
        said = [verdict.meets_expected for verdict in self.verdicts]
        return None if self.outcome == "tie" or None in said else all(said)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Trials of all cases, and the margin that the new prompt has to win by."""

    trials: Sequence[Trial]
    margin: float

    def count(self, outcome: Outcome) -> int:
        """Return how many cases had this outcome."""
        return sum(trial.outcome == outcome for trial in self.trials)

    @property
    def won_as_expected(self) -> int:
        """The number of cases that the new prompt won with an answer as it is expected."""
        return sum(trial.outcome == "win" and trial.meets_expected is True for trial in self.trials)

    @property
    def net_win_rate(self) -> float:
        """Wins minus losses as a share of all cases, from -1 to 1."""
        return (self.count("win") - self.count("loss")) / len(self.trials)

    @property
    def passed(self) -> bool:
        """True if the new prompt is better, and better by the margin."""
        return self.net_win_rate >= self.margin and self.net_win_rate > 0


@dataclass(frozen=True, slots=True)
class Gate:
    """Tries prompts: `answers` asks the model that they are for, `judge` the one that compares."""

    answers: Ask
    judge: Ask

    async def try_case(self, old: str, new: str, case: Case) -> Trial:
        """Return the trial of one case; raises the errors of asking the models."""
        systems = [render_prompt(text, case.variables, like=old) for text in (old, new)]
        before, after = await run_together(
            *(answer(self.answers, system, case) for system in systems)
        )
        answers: dict[Side, Answer] = {"old": before, "new": after}
        if before == after:
            return Trial(answers, (Verdict("old", "tie", SAME), Verdict("new", "tie", SAME)))
        comparison = Comparison(case.turns, case.expected, answers)
        verdicts = await run_together(
            judge(self.judge, comparison, "old"), judge(self.judge, comparison, "new")
        )
        return Trial(answers, tuple(verdicts))

    async def evaluate(
        self, old: str, new: str, cases: Sequence[Case], margin: float
    ) -> Evaluation:
        """Try all cases, of which there is at least one."""
        trials = await run_together(*(self.try_case(old, new, case) for case in cases))
        return Evaluation(trials, margin)


async def answer(ask: Ask, system: str, case: Case) -> Answer:
    """Return a model's answer to a case.

    Raises the errors of asking the model, except for a request that the provider refuses.
    """
    request = Request(system, case.messages)
    try:
        completion = await ask(request, "answer")
    except BadRequestError as error:
        return Answer("", f"The provider refused the request: {_clean(str(error))}")
    text = _clean(completion.text).strip()[:_MAX_ANSWER_CHARACTERS]
    return Answer(text, _find_problem(completion))


def check_conversation(turns: Sequence[Turn]) -> None:
    """Raise InvalidRequestError if no model could answer it with a prompt as the system text."""
    for index, turn in enumerate(turns):
        if turn.role == "system":
            raise _invalid(
                index, "is a system message, which is what the prompts are; leave it out"
            )
        if not turn.text.strip():
            raise _invalid(index, "says nothing; leave it out")
    for index, where in ((0, "first"), (len(turns) - 1, "last")):
        if _side_of(turns[index]) == "assistant":
            raise _invalid(
                index,
                f"is the assistant's; the {where} message has to be the user's: the prompts are "
                "tried by the answers to the last one",
            )


def _side_of(turn: Turn) -> Literal["user", "assistant"]:
    return "assistant" if turn.role == "assistant" else "user"


def _message_text(turn: Turn) -> str:
    if turn.role == "tool":
        return f"[A tool returned:]\n{turn.text}"
    has_name = turn.role == "user" and turn.speaker != turn.role
    return f"{turn.speaker}: {turn.text}" if has_name else turn.text


def _find_problem(completion: Completion) -> str | None:
    if completion.finish_reason == "refusal":
        return "The model refused to answer."
    if completion.finish_reason == "length":
        return "The answer was cut off; it was too long."
    return None if completion.text.strip() else "The model answered nothing."


def _clean(text: str) -> str:
    return replace_unstorable(text)


def _invalid(index: int, problem: str) -> InvalidRequestError:
    field_ = f"messages[{index}]"
    return InvalidRequestError(f"{field_} {problem}.", field=field_)
