"""The kind "metaprompt": the model thinks and writes the new prompt in one dialogue."""

from collections.abc import Sequence

from app.conversations.dialogue import AnswerTool, Ask, Dialogue, NoAnswerError
from app.json_values import JsonObject
from app.prompts.optimize.answers import (
    REPAIR,
    RewriteParser,
    answer_after_thinking,
    define_argument,
    define_tool,
    parse_explanation,
    with_room_for,
)
from app.prompts.optimize.render import render_custom_request, render_request, render_system
from app.prompts.optimize.types import Optimization, OptimizerConfig, TargetPrompt, Trajectory

_IMPROVE = define_tool(
    "improve",
    analysis=define_argument("analysis"),
    improved_prompt=define_argument("improved_prompt", nullable=True),
)


class MetaPromptOptimizer:
    """Thinks and rewrites in one dialogue; stops as soon as the model has answered."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises the errors of asking the model."""
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
            return Optimization.of(prompt, text, parse_explanation(arguments, "analysis"))

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
        except NoAnswerError as error:
            return Optimization.rejected(str(error))
