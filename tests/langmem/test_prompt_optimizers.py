"""LangMem's prompt optimizers and memoryd's job, given the same decision of a model."""

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage

from tests.langmem.decisions import JSON
from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_prompt_optimizer,
)
from tests.langmem.ours import Memoryd
from tests.langmem.parity import TALK
from tests.support.llm_server import Received, Reply, calls

pytestmark = pytest.mark.slow  # each waits for workers or models

GUIDE = "You are a guide to the cities of Europe."
SHORT = f"{GUIDE} Answer in one sentence."
REASON = "The answers were too long."
ADVICE: JSON = {
    "warrants_adjustment": True,
    "hypotheses": REASON,
    "full_recommendations": "Keep answers short.",
}
REVISION: JSON = {"logic": REASON, "update_prompt": True, "new_prompt": SHORT}
IMPROVEMENT: JSON = {"analysis": REASON, "improved_prompt": SHORT}


def decide(offered: set[str]) -> tuple[str, JSON]:
    """Return the call of the offered tools that leads to the shorter prompt."""
    if "recommend" in offered:
        return "recommend", ADVICE
    if revising := offered & {"revise", "GeneralResponse"}:
        return revising.pop(), REVISION
    if improving := offered & {"improve", "OptimizedPromptOutput"}:
        return improving.pop(), IMPROVEMENT
    return "think", {"thought": REASON}


@pytest.mark.parametrize("kind", ["gradient", "metaprompt", "prompt_memory"])
async def test_a_prompt_is_improved(
    memoryd: Memoryd, kind: Literal["gradient", "metaprompt", "prompt_memory"]
) -> None:
    def theirs(asked: Asked) -> AIMessage:
        return calling(decide(set(asked.tools)))

    def ours(received: Received) -> Reply:
        return calls(decide({tool.name for tool in received.tools}))

    optimizer = create_prompt_optimizer(ChatModel(respond=theirs), kind=kind)
    given: Any = {"name": "guide", "prompt": GUIDE}
    by_theirs = await optimizer.ainvoke({"trajectories": [(TALK, "Too long.")], "prompt": given})

    memoryd.llm.respond = ours
    job = await memoryd.job(
        "optimize-prompt",
        prompt={"name": "guide", "text": GUIDE},
        trajectories=[{"messages": TALK, "feedback": {"comment": "Too long."}}],
        kind=kind,
    )
    (by_ours,) = job["result"]["prompts"]
    assert by_ours["text"] == by_theirs == SHORT
