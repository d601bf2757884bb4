"""The kind "prompt_memory": the model decides and writes the new prompt in one call."""

from collections.abc import Sequence

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.prompts.optimize.asking import (
    AnswerTool,
    Arguments,
    NoAnswerError,
    StructuredDialogue,
    text_argument,
    tool,
    with_room_for,
)
from app.prompts.optimize.parse import RewriteParser, parse_decision, parse_explanation
from app.prompts.optimize.render import render_request, render_system
from app.prompts.optimize.types import Optimization, TargetPrompt, Trajectory

_REVISE = tool(
    "revise",
    logic=text_argument("logic"),
    update_prompt={**text_argument("update_prompt"), "type": "boolean"},
    new_prompt=text_argument("new_prompt"),
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

        def parse(arguments: Arguments) -> Optimization:
            is_change = parse_decision(arguments, "update_prompt")
            text = rewrite.parse(arguments) if is_change else None
            return Optimization.of(prompt, text, parse_explanation(arguments, "logic"))

        try:
            return await StructuredDialogue(
                dialogue, AnswerTool(_REVISE, parse), "rewrite"
            ).answer()
        except NoAnswerError as error:
            return Optimization.rejected(str(error))
