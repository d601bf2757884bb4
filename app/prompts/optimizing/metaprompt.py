"""The kind "metaprompt": one dialogue, in which the model thinks and gives the new prompt."""

from collections.abc import Sequence
from typing import Any

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.prompts.optimizing.answers import (
    Rewriting,
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
from app.prompts.optimizing.config import OptimizerConfig
from app.prompts.optimizing.openings import own_request_text, request_text, system_text

_IMPROVE = tool(
    "improve",
    analysis=text_argument("analysis"),
    improved_prompt=text_argument("improved_prompt", nullable=True),
)


class MetaPromptOptimizer:
    """Thinks and rewrites in one dialogue; stops as soon as the model has given its answer."""

    def __init__(self, config: OptimizerConfig, ask: Ask) -> None:
        self._config = config
        self._ask = ask

    async def optimize(self, prompt: Prompt, trajectories: Sequence[Trajectory]) -> Optimized:
        """Return what came of a prompt; raises what asking the model raises."""
        if not trajectories:
            return nothing_to_learn_from()
        own = self._config.metaprompt
        dialogue = Dialogue(
            with_room_for(self._ask, prompt.text), system_text("metaprompt", prompt, own)
        )
        dialogue.say(
            request_text("metaprompt", prompt, trajectories)
            if own is None
            else own_request_text(own, prompt, trajectories)
        )
        rewriting = Rewriting("improved_prompt", prompt.text)

        def read(arguments: dict[str, Any]) -> Optimized:
            text = rewriting.read(arguments)
            return outcome(prompt, text, explanation(arguments, "analysis"))

        try:
            # The answer counts as one of the least number of steps, as in LangMem.
            return await Asking(dialogue, Form(_IMPROVE, read), "reflect").after_thinking(
                only_thinking=self._config.min_reflection_steps - 1,
                max_steps=self._config.max_reflection_steps,
            )
        except NoAnswerError as error:
            return rejected(str(error))
