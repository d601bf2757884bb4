"""What a model is told first: how to go about its task, the prompt, and the conversations."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from app.prompts.optimizing.base import Prompt, Trajectory
from app.prompts.optimizing.instructions import (
    filled,
    has_variable,
    joined,
    section,
    with_variables,
)
from app.prompts.optimizing.placeholders import rule
from app.prompts.optimizing.showing import (
    block,
    escaped,
    shown_feedback,
    shown_operator,
    shown_prompt,
    shown_trajectories,
)

Task: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory", "apply"]

_PARTS: Mapping[Task, Sequence[str]] = {
    "gradient": ("gradient", "material", "evidence", "editing"),
    "metaprompt": ("metaprompt", "material", "evidence", "editing"),
    "prompt_memory": ("prompt_memory", "material", "evidence", "editing"),
    "apply": ("apply", "editing"),
}
_OWN = ("own", "material")


def system_text(task: Task, prompt: Prompt, own_request: str | None = None) -> str:
    """Return how to go about a task.

    Where the user's own request says so already, only what holds of every request is told: what
    is material, what becomes of variables, how a prompt is handed over.
    """
    parts = [filled(name) for name in (_PARTS[task] if own_request is None else _OWN)]
    if own_request is None and shown_operator(prompt):
        parts.append(filled("operator"))
    parts.append(rule(prompt.text))
    if task != "gradient":
        parts.append(filled("whole"))
    return joined(*parts)


def request_text(task: Task, prompt: Prompt, trajectories: Sequence[Trajectory]) -> str:
    """Return the prompt and the conversations, and what to do now."""
    return joined(
        shown_prompt(prompt),
        shown_operator(prompt),
        block("trajectories", shown_trajectories(trajectories)),
        section("turns", task),
    )


def own_request_text(template: str, prompt: Prompt, trajectories: Sequence[Trajectory]) -> str:
    """Return a user's own request about conversations, with LangMem's variables filled in."""
    values = {
        "prompt": prompt.text,
        "trajectories": shown_trajectories(trajectories),
        "feedback": shown_feedback(trajectories),
        "update_instructions": prompt.update_instructions or "",
    }
    blocks = {
        "prompt": shown_prompt(prompt),
        "trajectories": block("trajectories", values["trajectories"]),
    }
    return _own_text(template, values, blocks)


def apply_text(prompt: Prompt, hypotheses: str, recommendations: str) -> str:
    """Return the prompt, and what to change in it."""
    return joined(
        shown_prompt(prompt),
        shown_operator(prompt),
        block("hypotheses", escaped(hypotheses)),
        block("recommendations", escaped(recommendations)),
        section("turns", "apply"),
    )


def own_apply_text(template: str, prompt: Prompt, hypotheses: str, recommendations: str) -> str:
    """Return a user's own request to change a prompt, with LangMem's variables filled in."""
    values = {
        "current_prompt": prompt.text,
        "hypotheses": escaped(hypotheses),
        "recommendations": escaped(recommendations),
        "update_instructions": prompt.update_instructions or "",
    }
    blocks = {
        "current_prompt": shown_prompt(prompt),
        "recommendations": block("recommendations", values["recommendations"]),
    }
    return _own_text(template, values, blocks)


def _own_text(template: str, values: Mapping[str, str], blocks: Mapping[str, str]) -> str:
    """Return a user's own request; what it cannot do without and has no place for is put after."""
    after = [text for name, text in blocks.items() if not has_variable(template, name)]
    return joined(with_variables(template, values), *after)
