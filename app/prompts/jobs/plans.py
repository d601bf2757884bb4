"""What a job that improves prompts keeps: everything decided when it was submitted."""

from typing import Any

from pydantic import BaseModel

from app.conversations.messages import to_turns
from app.jobs.kind import JobPlan
from app.prompts.evaluation.cases import Case
from app.prompts.jobs.schemas import GivenFeedback
from app.prompts.optimizing.base import Feedback, Kind, Prompt
from app.prompts.optimizing.config import OptimizerConfig


class PlannedPrompt(BaseModel):
    """A prompt to improve; `version` is the stored one's number, None where nothing is stored."""

    name: str
    text: str
    update_instructions: str | None
    when_to_update: str | None
    version: int | None

    def as_prompt(self) -> Prompt:
        """Return what optimisers take."""
        return Prompt(self.name, self.text, self.update_instructions, self.when_to_update)


class PlannedTrajectory(BaseModel):
    """A conversation: its messages, or their range in a thread, including `last`.

    `namespace` is the thread's stored namespace.
    """

    messages: list[dict[str, Any]] | None
    thread_id: str | None
    namespace: str | None = None
    first: int
    last: int
    feedback: GivenFeedback | None

    def as_feedback(self) -> Feedback | None:
        """Return what optimisers take."""
        return None if self.feedback is None else self.feedback.as_feedback()


class PlannedCase(BaseModel):
    """A case, and the only prompt it is about, if it is about one."""

    messages: list[dict[str, Any]]
    expected: str
    variables: dict[str, str]
    prompt: str | None

    def as_case(self) -> Case:
        """Return what the evaluation takes; raises InvalidMessageError."""
        return Case(to_turns(self.messages), self.expected, self.variables)


class PlannedEvaluation(BaseModel):
    """How new texts are tried."""

    cases: list[PlannedCase]
    model: str | None
    judge: str | None
    margin: float
    promote: bool

    def cases_of(self, prompt: str) -> list[PlannedCase]:
        """Return the cases that concern a prompt."""
        return [case for case in self.cases if case.prompt in (None, prompt)]


class OptimizePlan(JobPlan):
    """What a job of the kind `optimize_prompt` does; without a `model` the default is asked."""

    job_kind = "optimize_prompt"

    prompts: list[PlannedPrompt]
    kind: Kind
    config: OptimizerConfig
    model: str | None
    trajectories: list[PlannedTrajectory]
    evaluation: PlannedEvaluation | None
