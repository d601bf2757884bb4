"""What an optimiser is given and what it returns, in words that no storage knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from app.conversations.types import Turn

Kind: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to be improved; `when_to_update` says which feedback concerns it."""

    name: str
    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody thought of a conversation; `more` holds what else the client sent."""

    score: float | None = None
    comment: str | None = None
    edited_answer: str | None = None
    more: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A conversation that was held with the prompts, and what was thought of it."""

    turns: Sequence[Turn]
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Optimized:
    """What came of one prompt.

    `text` is the improved one; None when nothing changes, and then `outcome` says whether no
    change was warranted, or one was rejected, for the `reason`.
    """

    outcome: Literal["improved", "not_warranted", "rejected"]
    text: str | None
    analysis: str
    reason: str | None = None


class Optimizer(Protocol):
    """Improves one prompt by what a model makes of the trajectories."""

    async def optimize(self, prompt: Prompt, trajectories: Sequence[Trajectory]) -> Optimized:
        """Return what came of it; raises what asking the model raises."""
        ...
