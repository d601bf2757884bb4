"""Select the prompts that the feedback is about."""

import json
from collections.abc import Sequence

from app.conversations.dialogue import AnswerTool, Ask, BadAnswerError, Dialogue, StructuredDialogue
from app.json_values import JsonObject
from app.prompts.optimize.answers import REPAIR, define_argument, define_tool, parse_explanation
from app.prompts.optimize.render import (
    TEMPLATES,
    block,
    escape,
    join,
    render_instructions,
    render_trajectories,
)
from app.prompts.optimize.types import NO_CONVERSATIONS, TargetPrompt, Trajectory
from app.providers.llm import Tool

_MAX_QUOTED = 100


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
            block("prompts", "\n".join(map(_render_prompt, prompts))),
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


def _render_prompt(prompt: TargetPrompt) -> str:
    text = block("text", escape(prompt.text))
    return block("prompt", join(render_instructions(prompt), text), {"name": prompt.name})
