"""Prompts, conversations, and a scripted model's answers about them."""

from typing import Any

from app.conversations.messages import Turn
from app.prompts.task import build_optimizer
from app.prompts.types import (
    Feedback,
    Optimization,
    OptimizerConfig,
    OptimizerKind,
    TargetPrompt,
    Trajectory,
)
from app.providers.llm import Completion
from tests.support.scripted_model import Arguments, ScriptedModel, calls

PROMPT = TargetPrompt("support", "You help the customers of a bicycle shop.")
BETTER = "You help the customers of a bicycle shop. Give prices in euros."

TALK = Trajectory(
    turns=(
        Turn("1", "Ana", "What does the red one cost?"),
        Turn("2", "assistant", "It costs 300.", "assistant"),
    ),
    feedback=Feedback(score=0.2, comment="Which currency?", edited_answer="It costs 300 €."),
)

THINK = calls(("think", {"thought": "The currency is missing."}))
CRITIQUE = calls(("critique", {"criticism": "Was it clear from the context?"}))


def recommend(**arguments: Any) -> Completion:
    """Return a call that warrants a change unless told otherwise."""
    return calls(
        (
            "recommend",
            {
                "hypotheses": "The prompt names no currency.",
                "warrants_adjustment": True,
                "full_recommendations": 'Add "Give prices in euros." at the end.',
                **arguments,
            },
        )
    )


NO_CHANGE = recommend(
    hypotheses="All went well.", warrants_adjustment=False, full_recommendations=None
)


def improve(text: str | None = BETTER, analysis: str = "Names the currency.") -> Completion:
    return calls(improve_call(text, analysis))


def improve_call(
    text: Any = BETTER, analysis: str = "Names the currency."
) -> tuple[str, Arguments]:
    return "improve", {"analysis": analysis, "improved_prompt": text}


def revise(
    text: Any = BETTER, *, update: Any = True, logic: str = "Names the currency."
) -> Completion:
    return calls(("revise", {"logic": logic, "update_prompt": update, "new_prompt": text}))


async def optimized(
    kind: OptimizerKind,
    model: ScriptedModel,
    *trajectories: Trajectory,
    prompt: TargetPrompt = PROMPT,
    **config: Any,
) -> Optimization:
    """Return the outcome for a prompt with TALK or other conversations."""
    how = OptimizerConfig(**config)
    return await build_optimizer(kind, how, model).optimize(prompt, trajectories or (TALK,))


def last_message(model: ScriptedModel) -> str:
    """Return the last message to the model."""
    return model.requests[-1].messages[-1].text
