"""The kind "prompt_memory": one call, in which the model decides and gives the new prompt."""

from collections.abc import Sequence
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
    Form,
    NoAnswerError,
    text_argument,
    tool,
    with_room_for,
)
from app.prompts.optimizing.base import Optimized, Prompt, Trajectory
from app.prompts.optimizing.openings import request_text, system_text

_REVISE = tool(
    "revise",
    logic=text_argument("logic"),
    update_prompt={**text_argument("update_prompt"), "type": "boolean"},
    new_prompt=text_argument("new_prompt"),
)


class PromptMemoryOptimizer:
    """Rewrites at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def optimize(self, prompt: Prompt, trajectories: Sequence[Trajectory]) -> Optimized:
        """Return what came of a prompt; raises what asking the model raises."""
        if not trajectories:
            return nothing_to_learn_from()
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), system_text("prompt_memory", prompt)
        )
        dialogue.say(request_text("prompt_memory", prompt, trajectories))
        rewriting = Rewriting("new_prompt", prompt.text)

        def read(arguments: dict[str, Any]) -> Optimized:
            wanted = decision(arguments, "update_prompt")
            text = rewriting.read(arguments) if wanted else None
            return outcome(prompt, text, explanation(arguments, "logic"))

        try:
            return await Asking(dialogue, Form(_REVISE, read), "rewrite").at_once()
        except NoAnswerError as error:
            return rejected(str(error))
