"""The kind "gradient": one dialogue recommends changes, and another one carries them out."""

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
from app.json_values import JsonObject
from app.prompts.optimize.answers import (
    REPAIR,
    RewriteParser,
    answer_after_thinking,
    define_argument,
    define_tool,
    parse_decision,
    parse_explanation,
    with_room_for,
)
from app.prompts.optimize.render import (
    join,
    render_apply_request,
    render_custom_apply_request,
    render_custom_request,
    render_request,
    render_system,
)
from app.prompts.optimize.types import Optimization, OptimizerConfig, TargetPrompt, Trajectory

_RECOMMEND = define_tool(
    "recommend",
    hypotheses=define_argument("hypotheses"),
    warrants_adjustment={**define_argument("warrants_adjustment"), "type": "boolean"},
    full_recommendations=define_argument("full_recommendations", nullable=True),
)
_IMPROVE = define_tool(
    "improve",
    "improve_as_recommended",
    analysis=define_argument("analysis_of_changes"),
    improved_prompt=define_argument("applied_prompt"),
)


@dataclass(frozen=True, slots=True)
class _Recommendation:
    """Changes to make and why; `changes` is None if no change is warranted."""

    hypotheses: str
    changes: str | None

    @property
    def analysis(self) -> str:
        return join(self.hypotheses, self.changes or "")


class GradientOptimizer:
    """Separates finding changes from making them, and changes as little as possible."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises the errors of asking the model."""
        if not trajectories:
            return Optimization.without_conversations()
        try:
            recommendation = await self._reflect(prompt, trajectories)
        except NoAnswerError as error:
            return Optimization.rejected(str(error))
        if recommendation.changes is None:
            return Optimization.of(prompt, None, recommendation.analysis)
        try:
            return await self._apply(prompt, recommendation.hypotheses, recommendation.changes)
        except NoAnswerError as error:
            return Optimization.rejected(str(error), recommendation.analysis)

    async def _reflect(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> _Recommendation:
        custom = self._config.gradient_prompt
        dialogue = Dialogue(self._ask, render_system("gradient", prompt, custom))
        dialogue.say(
            render_request("gradient", prompt, trajectories)
            if custom is None
            else render_custom_request(custom, prompt, trajectories)
        )
        answer = AnswerTool(_RECOMMEND, _parse_recommendation, REPAIR)
        return await answer_after_thinking(
            dialogue,
            answer,
            "reflect",
            only_thinking=self._config.min_reflection_steps,
            max_steps=self._config.max_reflection_steps,
        )

    async def _apply(self, prompt: TargetPrompt, hypotheses: str, changes: str) -> Optimization:
        custom = self._config.metaprompt
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), render_system("apply", prompt, custom)
        )
        dialogue.say(
            render_apply_request(prompt, hypotheses, changes)
            if custom is None
            else render_custom_apply_request(custom, prompt, hypotheses, changes)
        )
        rewrite = RewriteParser("improved_prompt", prompt.text)

        def parse(arguments: JsonObject) -> Optimization:
            text = rewrite.parse(arguments)
            if text is None:
                raise BadAnswerError("improved_prompt is empty, though a change is warranted")
            explanation = parse_explanation(arguments, "analysis")
            return Optimization.of(prompt, text, join(hypotheses, changes, explanation))

        return await StructuredDialogue(
            dialogue, AnswerTool(_IMPROVE, parse, REPAIR), "apply"
        ).answer()


def _parse_recommendation(arguments: JsonObject) -> _Recommendation:
    hypotheses = parse_explanation(arguments, "hypotheses")
    changes = parse_explanation(arguments, "full_recommendations")
    if not parse_decision(arguments, "warrants_adjustment"):
        return _Recommendation(hypotheses or changes, None)
    if not changes:
        raise BadAnswerError("full_recommendations is empty, though warrants_adjustment is true")
    return _Recommendation(hypotheses, changes)
