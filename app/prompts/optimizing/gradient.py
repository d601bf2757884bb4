"""The kind "gradient": the model thinks until it can recommend; then another dialogue rewrites."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.prompts.optimizing.answers import (
    Rewriting,
    decision,
    explanation,
    nothing_to_learn_from,
    outcome,
    rejected,
)
from app.prompts.optimizing.asking import (
    Asking,
    BadAnswerError,
    Form,
    NoAnswerError,
    text_argument,
    tool,
    with_room_for,
)
from app.prompts.optimizing.base import Optimized, Prompt, Trajectory
from app.prompts.optimizing.config import OptimizerConfig
from app.prompts.optimizing.instructions import joined
from app.prompts.optimizing.openings import (
    apply_text,
    own_apply_text,
    own_request_text,
    request_text,
    system_text,
)

_RECOMMEND = tool(
    "recommend",
    hypotheses=text_argument("hypotheses"),
    warrants_adjustment={**text_argument("warrants_adjustment"), "type": "boolean"},
    full_recommendations=text_argument("full_recommendations", nullable=True),
)
_IMPROVE = tool(
    "improve",
    "improve_as_recommended",
    analysis=text_argument("analysis_of_changes"),
    improved_prompt=text_argument("applied_prompt"),
)


@dataclass(frozen=True, slots=True)
class _Recommendation:
    """What should change and why; nothing where no change is warranted."""

    hypotheses: str
    changes: str | None

    @property
    def analysis(self) -> str:
        return joined(self.hypotheses, self.changes or "")


class GradientOptimizer:
    """Separates finding out what to change from changing it, with as little as possible changed."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(self, prompt: Prompt, trajectories: Sequence[Trajectory]) -> Optimized:
        """Return what came of a prompt; raises what asking the model raises."""
        if not trajectories:
            return nothing_to_learn_from()
        try:
            recommended = await self._reflect(prompt, trajectories)
        except NoAnswerError as error:
            return rejected(str(error))
        if recommended.changes is None:
            return outcome(prompt, None, recommended.analysis)
        try:
            return await self._apply(prompt, recommended.hypotheses, recommended.changes)
        except NoAnswerError as error:
            return rejected(str(error), recommended.analysis)

    async def _reflect(self, prompt: Prompt, trajectories: Sequence[Trajectory]) -> _Recommendation:
        own = self._config.gradient_prompt
        dialogue = Dialogue(self._ask, system_text("gradient", prompt, own))
        dialogue.say(
            request_text("gradient", prompt, trajectories)
            if own is None
            else own_request_text(own, prompt, trajectories)
        )
        return await Asking(dialogue, Form(_RECOMMEND, _recommendation), "reflect").after_thinking(
            only_thinking=self._config.min_reflection_steps,
            max_steps=self._config.max_reflection_steps,
        )

    async def _apply(self, prompt: Prompt, hypotheses: str, changes: str) -> Optimized:
        own = self._config.metaprompt
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), system_text("apply", prompt, own)
        )
        dialogue.say(
            apply_text(prompt, hypotheses, changes)
            if own is None
            else own_apply_text(own, prompt, hypotheses, changes)
        )
        rewriting = Rewriting("improved_prompt", prompt.text)

        def read(arguments: dict[str, Any]) -> Optimized:
            text = rewriting.read(arguments)
            if text is None:
                raise BadAnswerError("improved_prompt is empty, though a change is warranted")
            made = explanation(arguments, "analysis")
            return outcome(prompt, text, joined(hypotheses, changes, made))

        return await Asking(dialogue, Form(_IMPROVE, read), "apply").at_once()


def _recommendation(arguments: dict[str, Any]) -> _Recommendation:
    hypotheses = explanation(arguments, "hypotheses")
    changes = explanation(arguments, "full_recommendations")
    if not decision(arguments, "warrants_adjustment"):
        return _Recommendation(hypotheses or changes, None)
    if not changes:
        raise BadAnswerError("full_recommendations is empty, though warrants_adjustment is true")
    return _Recommendation(hypotheses, changes)
