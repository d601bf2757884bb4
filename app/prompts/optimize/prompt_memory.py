"""The kind "prompt_memory": the model decides and writes the new prompt in one call."""

from collections.abc import Sequence

from app.conversations.dialogue import AnswerTool, Ask, Dialogue, NoAnswerError, StructuredDialogue
from app.json_values import JsonObject
from app.prompts.optimize.answers import (
    REPAIR,
    RewriteParser,
    define_argument,
    define_tool,
    parse_decision,
    parse_explanation,
    with_room_for,
)
from app.prompts.optimize.render import render_request, render_system
from app.prompts.optimize.types import Optimization, TargetPrompt, Trajectory

_REVISE = define_tool(
    "revise",
    logic=define_argument("logic"),
    update_prompt={**define_argument("update_prompt"), "type": "boolean"},
    new_prompt=define_argument("new_prompt"),
)


class PromptMemoryOptimizer:
    """Rewrites a prompt without a step for thinking."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises the errors of asking the model."""
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
            return Optimization.of(prompt, text, parse_explanation(arguments, "logic"))

        try:
            return await StructuredDialogue(
                dialogue, AnswerTool(_REVISE, parse, REPAIR), "rewrite"
            ).answer()
        except NoAnswerError as error:
            return Optimization.rejected(str(error))
