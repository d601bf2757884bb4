"""Optimizers: models improve prompts by conversations and the feedback on them; no database."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from app.conversations.dialogue import (
    AnswerTool,
    Ask,
    BadAnswerError,
    Dialogue,
    InvalidAnswerError,
    RefusalError,
    StructuredDialogue,
)
from app.json_values import JsonObject
from app.prompts.optimizer_answers import (
    REPAIR,
    RewriteParser,
    answer_after_thinking,
    define_argument,
    define_tool,
    parse_analysis,
    parse_counterexamples,
    parse_decision,
    parse_explanation,
    with_room_for,
)
from app.prompts.optimizer_requests import (
    TEMPLATES,
    block,
    join,
    render_apply_request,
    render_custom_apply_request,
    render_custom_request,
    render_prompts,
    render_request,
    render_system,
    render_trajectories,
)
from app.prompts.types import (
    NO_CONVERSATIONS,
    Optimization,
    OptimizerConfig,
    TargetPrompt,
    Trajectory,
)
from app.providers.llm import Tool

_MAX_QUOTED = 100

_RECOMMEND = define_tool(
    "recommend",
    hypotheses=define_argument("hypotheses"),
    warrants_adjustment={**define_argument("warrants_adjustment"), "type": "boolean"},
    counterexamples=define_argument("counterexamples"),
    full_recommendations=define_argument("full_recommendations"),
)
_APPLY = define_tool(
    "improve",
    "improve_as_recommended",
    analysis=define_argument("analysis_of_changes"),
    improved_prompt=define_argument("applied_prompt"),
)

_IMPROVE = define_tool(
    "improve",
    analysis=define_argument("analysis"),
    counterexamples=define_argument("counterexamples"),
    improved_prompt=define_argument("improved_prompt"),
)

_REVISE = define_tool(
    "revise",
    logic=define_argument("logic"),
    update_prompt={**define_argument("update_prompt"), "type": "boolean"},
    counterexamples=define_argument("counterexamples"),
    new_prompt=define_argument("new_prompt"),
)


async def choose_prompts(
    ask: Ask, prompts: Sequence[TargetPrompt], trajectories: Sequence[Trajectory]
) -> tuple[list[str], str]:
    """Return the names of the prompts to improve, in the given order, and the reason.

    A single prompt without `when_to_update` is chosen without asking. Raises NoAnswerError if the
    model does not choose, and the errors of asking it.
    """
    if not trajectories:
        return [], NO_CONVERSATIONS
    if len(prompts) == 1 and not prompts[0].when_to_update:
        return [prompts[0].name], "it is the only prompt"
    dialogue = Dialogue(ask, join(*map(TEMPLATES.fill, ("choose", "material", "evidence"))))
    dialogue.say(
        join(
            block("prompts", render_prompts(prompts)),
            block("trajectories", render_trajectories(trajectories)),
            TEMPLATES.fill_section("turns", "choose"),
        )
    )
    choice = _ChoiceParser([prompt.name for prompt in prompts])
    return await StructuredDialogue(
        dialogue, AnswerTool(_choice_tool(prompts), choice.parse, REPAIR), "choose"
    ).answer()


class _ChoiceParser:
    """Parses a model's choice; unknown names are sent back once, and then ignored."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sent_back = False

    def parse(self, arguments: JsonObject) -> tuple[list[str], str]:
        which, why = arguments.get("which"), parse_explanation(arguments, "reasoning")
        if not isinstance(which, list):
            raise BadAnswerError("`which` must be a list of names")
        unknown = [json.dumps(name)[:_MAX_QUOTED] for name in which if name not in self._names]
        if unknown and not self._sent_back:
            self._sent_back = True
            raise BadAnswerError(
                f"there is no prompt {', '.join(unknown)}; there are {', '.join(self._names)}"
            )
        ignored = (
            f"The model also named {', '.join(unknown)}, which is no prompt." if unknown else ""
        )
        return [name for name in self._names if name in which], join(why, ignored)


def _choice_tool(prompts: Sequence[TargetPrompt]) -> Tool:
    names = {"type": "string", "enum": [prompt.name for prompt in prompts]}
    which = {**define_argument("which"), "type": "array", "items": names}
    return define_tool("choose", reasoning=define_argument("reasoning"), which=which)


@dataclass(frozen=True, slots=True)
class _Recommendation:
    """Changes to make and why; `changes` is None if no change is warranted."""

    hypotheses: str
    changes: str | None
    counterexamples: str = ""

    @property
    def analysis(self) -> str:
        return join(self.hypotheses, self.changes or "", self.counterexamples)


class GradientOptimizer:
    """Separates finding changes from making them, and changes as little as possible."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises NoAnswerError, and the errors of asking."""
        if not trajectories:
            return Optimization.without_conversations()
        try:
            recommendation = await self._reflect(prompt, trajectories)
        except (InvalidAnswerError, RefusalError) as error:
            return Optimization.rejected(error.reason)
        if recommendation.changes is None:
            return Optimization.of(prompt, None, recommendation.analysis)
        try:
            return await self._apply(prompt, recommendation, recommendation.changes)
        except (InvalidAnswerError, RefusalError) as error:
            return Optimization.rejected(error.reason, recommendation.analysis)

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

    async def _apply(
        self, prompt: TargetPrompt, recommendation: _Recommendation, changes: str
    ) -> Optimization:
        custom, hypotheses = self._config.metaprompt, recommendation.hypotheses
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
            return Optimization.of(prompt, text, join(recommendation.analysis, explanation))

        return await StructuredDialogue(
            dialogue, AnswerTool(_APPLY, parse, REPAIR), "apply"
        ).answer()


def _parse_recommendation(arguments: JsonObject) -> _Recommendation:
    hypotheses = parse_explanation(arguments, "hypotheses")
    changes = parse_explanation(arguments, "full_recommendations")
    if not parse_decision(arguments, "warrants_adjustment"):
        return _Recommendation(hypotheses or changes, None)
    if not changes:
        raise BadAnswerError("full_recommendations is empty, though warrants_adjustment is true")
    return _Recommendation(hypotheses, changes, parse_counterexamples(arguments))


class MetaPromptOptimizer:
    """Thinks and rewrites in one dialogue; stops as soon as the model has answered."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises NoAnswerError, and the errors of asking."""
        if not trajectories:
            return Optimization.without_conversations()
        custom = self._config.metaprompt
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), render_system("metaprompt", prompt, custom)
        )
        dialogue.say(
            render_request("metaprompt", prompt, trajectories)
            if custom is None
            else render_custom_request(custom, prompt, trajectories)
        )
        rewrite = RewriteParser("improved_prompt", prompt.text)

        def parse(arguments: JsonObject) -> Optimization:
            text = rewrite.parse(arguments)
            return Optimization.of(prompt, text, parse_analysis(arguments, "analysis"))

        answer = AnswerTool(_IMPROVE, parse, REPAIR)
        try:
            # The answer counts as one of the least number of steps, as in LangMem.
            return await answer_after_thinking(
                dialogue,
                answer,
                "reflect",
                only_thinking=self._config.min_reflection_steps - 1,
                max_steps=self._config.max_reflection_steps,
            )
        except (InvalidAnswerError, RefusalError) as error:
            return Optimization.rejected(error.reason)


class PromptMemoryOptimizer:
    """Rewrites a prompt without a step for thinking."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises NoAnswerError, and the errors of asking."""
        if not trajectories:
            return Optimization.without_conversations()
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), render_system("prompt_memory", prompt)
        )
        dialogue.say(render_request("prompt_memory", prompt, trajectories))
        rewrite = RewriteParser("new_prompt", prompt.text)

        def parse(arguments: JsonObject) -> Optimization:
            is_change = parse_decision(arguments, "update_prompt")
            text = rewrite.parse(arguments) if is_change else None
            return Optimization.of(prompt, text, parse_analysis(arguments, "logic"))

        try:
            return await StructuredDialogue(
                dialogue, AnswerTool(_REVISE, parse, REPAIR), "rewrite"
            ).answer()
        except (InvalidAnswerError, RefusalError) as error:
            return Optimization.rejected(error.reason)
