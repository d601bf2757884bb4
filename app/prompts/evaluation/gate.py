"""The gate: a new text of a prompt passes if it wins by a margin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.conversations.types import Ask
from app.prompts.evaluation.answering import Answer, answer
from app.prompts.evaluation.cases import Case
from app.prompts.evaluation.judging import Side, Verdict, judge
from app.prompts.filling import filled
from app.prompts.together import together

Outcome: TypeAlias = Literal["win", "loss", "tie"]

SAME = "The answers are the same."


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one case; `outcome` is the new prompt's."""

    answers: dict[Side, Answer]
    verdicts: tuple[Verdict, ...]

    @property
    def outcome(self) -> Outcome:
        """Won or lost only where both orders agree on it."""
        preferred = {verdict.preferred for verdict in self.verdicts}
        if preferred == {"new"}:
            return "win"
        return "loss" if preferred == {"old"} else "tie"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of all cases, and the share of them that the new prompt has to be ahead by."""

    trials: Sequence[Trial]
    margin: float

    def count(self, outcome: Outcome) -> int:
        """Return how many cases ended so."""
        return sum(trial.outcome == outcome for trial in self.trials)

    @property
    def net_win_rate(self) -> float:
        """Wins less losses, of all cases; from -1 to 1."""
        return (self.count("win") - self.count("loss")) / len(self.trials)

    @property
    def passed(self) -> bool:
        """Whether the new prompt is better by the margin, and better at all."""
        return self.net_win_rate >= self.margin and self.net_win_rate > 0


@dataclass(frozen=True, slots=True)
class Gate:
    """Tries prompts: `answers` is the model that they are for, `judge` compares."""

    answers: Ask
    judge: Ask

    async def try_case(self, old: str, new: str, case: Case) -> Trial:
        """Return how a case ends; raises what asking the models raises."""
        systems = [filled(text, case.variables, like=old) for text in (old, new)]
        before, after = await together(*(answer(self.answers, text, case) for text in systems))
        answers: dict[Side, Answer] = {"old": before, "new": after}
        if before == after:
            return Trial(answers, (Verdict("old", "tie", SAME), Verdict("new", "tie", SAME)))
        verdicts = await together(
            judge(self.judge, case, answers, "old"), judge(self.judge, case, answers, "new")
        )
        return Trial(answers, tuple(verdicts))

    async def evaluate(
        self, old: str, new: str, cases: Sequence[Case], margin: float
    ) -> Evaluation:
        """Return how all cases end, which is at least one."""
        trials = await together(*(self.try_case(old, new, case) for case in cases))
        return Evaluation(trials, margin)
