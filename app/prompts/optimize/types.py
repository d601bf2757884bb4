"""Inputs and outcomes of optimizers, independent of storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias

from app.conversations.messages import Turn
from app.json_values import replace_unstorable
from app.prompts.types import MAX_ANALYSIS_CHARACTERS

OptimizerKind: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory"]

DEFAULT_MAX_REFLECTION_STEPS = 5
DEFAULT_MIN_REFLECTION_STEPS = 1

NO_CONVERSATIONS = "there are no conversations to improve it by"


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Settings of the kinds "gradient" and "metaprompt", with LangMem's names and defaults.

    The two texts replace our own requests to the model; None keeps those.
    """

    max_reflection_steps: int = DEFAULT_MAX_REFLECTION_STEPS
    min_reflection_steps: int = DEFAULT_MIN_REFLECTION_STEPS
    gradient_prompt: str | None = None
    metaprompt: str | None = None


OPTIONS: Mapping[OptimizerKind, frozenset[str]] = {
    "gradient": frozenset(
        {"max_reflection_steps", "min_reflection_steps", "gradient_prompt", "metaprompt"}
    ),
    "metaprompt": frozenset({"max_reflection_steps", "min_reflection_steps", "metaprompt"}),
    "prompt_memory": frozenset(),
}
"""The settings that each kind takes."""


@dataclass(frozen=True, slots=True)
class TargetPrompt:
    """A prompt to improve; `when_to_update` says which feedback concerns it."""

    name: str
    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback on a conversation; `more` holds any further members that the client sent."""

    score: float | None = None
    comment: str | None = None
    edited_answer: str | None = None
    more: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A conversation that was held with the prompts, and the feedback on it."""

    turns: Sequence[Turn]
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Optimization:
    """Outcome for one prompt.

    `text` is the improved prompt. It is None if nothing changes; then `outcome` says whether no
    change was warranted or one was rejected, and `reason` says why.
    """

    outcome: Literal["improved", "not_warranted", "rejected"]
    text: str | None
    analysis: str
    reason: str | None = None

    @classmethod
    def of(cls, prompt: TargetPrompt, text: str | None, analysis: str) -> Self:
        """Return the outcome of a new text; `text` is None if the model wrote none."""
        analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
        if text is None:
            return cls("not_warranted", None, analysis, "the model recommends no change")
        if text.strip() == prompt.text.strip():
            return cls("not_warranted", None, analysis, "the model left the prompt as it is")
        return cls("improved", text, analysis)

    @classmethod
    def without_conversations(cls) -> Self:
        """Return the outcome if there are no conversations."""
        return cls("not_warranted", None, "", NO_CONVERSATIONS)

    @classmethod
    def rejected(cls, reason: str, analysis: str = "") -> Self:
        """Return the outcome if the model gave no usable answer."""
        analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
        return cls("rejected", None, analysis, replace_unstorable(reason))


class Optimizer(Protocol):
    """Improves one prompt with a model, using the trajectories."""

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises the errors of asking the model."""
        ...
