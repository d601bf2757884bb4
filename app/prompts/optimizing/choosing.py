"""Which of several prompts the conversations give reason to change."""

import json
from collections.abc import Sequence
from typing import Any

from app.conversations.dialogue import Dialogue
from app.conversations.types import Ask
from app.jobs.run import JobFailedError
from app.prompts.optimizing.answers import NO_CONVERSATIONS, explanation
from app.prompts.optimizing.asking import (
    Asking,
    BadAnswerError,
    Form,
    NoAnswerError,
    text_argument,
    tool,
)
from app.prompts.optimizing.base import Prompt, Trajectory
from app.prompts.optimizing.instructions import filled, joined, section
from app.prompts.optimizing.showing import block, escaped, shown_operator, shown_trajectories
from app.providers.llm.base import Tool

_MAX_QUOTED = 100


async def choose(
    ask: Ask, prompts: Sequence[Prompt], trajectories: Sequence[Trajectory]
) -> tuple[list[str], str]:
    """Return the names of the prompts to improve, in the given order, and why those.

    A single prompt without `when_to_update` is chosen without asking. Raises JobFailedError when
    the model does not choose, and what `ask` raises.
    """
    if not trajectories:
        return [], NO_CONVERSATIONS
    if len(prompts) == 1 and not prompts[0].when_to_update:
        return [prompts[0].name], "it is the only prompt"
    dialogue = Dialogue(ask, joined(*map(filled, ("choose", "material", "evidence"))))
    dialogue.say(
        joined(
            block("prompts", "\n".join(map(_shown, prompts))),
            block("trajectories", shown_trajectories(trajectories)),
            section("turns", "choose"),
        )
    )
    form = Form(_tool(prompts), _Chooser([prompt.name for prompt in prompts]).read)
    try:
        return await Asking(dialogue, form, "choose").at_once()
    except NoAnswerError as error:
        raise JobFailedError("invalid_output", f"No prompt was chosen: {error}.") from error


class _Chooser:
    """Reads what a model chooses; names that are no prompt's go back once and then do not count."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sent_back = False

    def read(self, arguments: dict[str, Any]) -> tuple[list[str], str]:
        which, why = arguments.get("which"), explanation(arguments, "reasoning")
        if not isinstance(which, list):
            raise BadAnswerError("`which` must be a list of names")
        unknown = [json.dumps(name)[:_MAX_QUOTED] for name in which if name not in self._names]
        if unknown and not self._sent_back:
            self._sent_back = True
            raise BadAnswerError(
                f"there is no prompt {', '.join(unknown)}; there are {', '.join(self._names)}"
            )
        dropped = (
            f"The model also named {', '.join(unknown)}, which is no prompt." if unknown else ""
        )
        return [name for name in self._names if name in which], joined(why, dropped)


def _tool(prompts: Sequence[Prompt]) -> Tool:
    names = {"type": "string", "enum": [prompt.name for prompt in prompts]}
    which = {**text_argument("which"), "type": "array", "items": names}
    return tool("choose", reasoning=text_argument("reasoning"), which=which)


def _shown(prompt: Prompt) -> str:
    text = block("text", escaped(prompt.text))
    return block("prompt", joined(shown_operator(prompt), text), name=prompt.name)
