"""LangMem's prompt optimisers and memoryd's, where a model writes certain texts."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from tests.langmem.decisions import JSON
from tests.langmem.optimizers import TALK, by_memoryd
from tests.langmem.original import Asked, ChatModel, calling, create_prompt_optimizer
from tests.langmem.ours import Memoryd
from tests.langmem.verdicts import Kind, Prompt
from tests.support.llm_server import Received, Reply, calls

WARRANTED: JSON = {
    "warrants_adjustment": True,
    "hypotheses": "It was too long.",
    "full_recommendations": "Be brief.",
}
REPAIR: JSON = {"json_doc_id": "call_0", "planned_edits": "-", "patches": []}


def writing(*texts: str | None, update: bool = True) -> Callable[[Asked], AIMessage]:
    """Return a `respond` for LangMem whose model writes these texts one after the other.

    The last one is repeated; asked for a repair, the model has none.
    """
    left = list(texts)

    def respond(asked: Asked) -> AIMessage:
        if "PatchFunctionErrors" in asked.tools:
            return calling(("PatchFunctionErrors", REPAIR))
        if "recommend" in asked.tools:
            return calling(("recommend", WARRANTED))
        if asked.tools == ["think", "critique"]:
            return calling(("think", {"thought": "Hm."}))
        text = left.pop(0) if len(left) > 1 else left[0]
        if "GeneralResponse" in asked.tools:
            answer = {"logic": "-", "update_prompt": update, "new_prompt": text}
            return calling(("GeneralResponse", answer))
        return calling(("OptimizedPromptOutput", {"analysis": "-", "improved_prompt": text}))

    return respond


def answering(*texts: str | None, update: bool = True) -> Callable[[Received], Reply]:
    """Return a `respond` for memoryd whose model writes these texts one after the other."""
    left = list(texts)

    def respond(received: Received) -> Reply:
        offered = {tool.name for tool in received.tools}
        if "recommend" in offered:
            return calls(("recommend", WARRANTED))
        if offered == {"think", "critique"}:
            return calls(("think", {"thought": "Hm."}))
        text = left.pop(0) if len(left) > 1 else left[0]
        if "revise" in offered:
            answer = {"logic": "-", "update_prompt": update, "new_prompt": text}
            return calls(("revise", answer))
        return calls(("improve", {"analysis": "-", "improved_prompt": text}))

    return respond


async def optimized_by_langmem(
    prompt: Any,
    respond: Callable[[Asked], AIMessage],
    kind: Kind = "gradient",
    trajectories: Sequence[Any] = (TALK,),
    config: JSON | None = None,
) -> tuple[str, ChatModel]:
    """Return LangMem's text, and the model with what it was asked."""
    model = ChatModel(respond=respond)
    optimizer = create_prompt_optimizer(model, kind=kind, config=config)
    state = {"trajectories": list(trajectories), "prompt": prompt}
    return await optimizer.ainvoke(state), model


async def optimized_by_memoryd(
    memoryd: Memoryd, text: str, respond: Callable[[Received], Reply], kind: Kind = "gradient"
) -> JSON:
    """Return what came of a prompt in memoryd."""
    memoryd.llm.respond = respond
    (result,) = await by_memoryd(memoryd, [Prompt("prompt", text)], kind=kind)
    return result
