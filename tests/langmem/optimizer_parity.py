"""LangMem's prompt optimizers and memoryd's job, given the same decisions of a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from langchain_core.messages import AIMessage

from tests.langmem.decisions import JSON
from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_multi_prompt_optimizer,
    create_prompt_optimizer,
)
from tests.langmem.ours import Memoryd, Respond
from tests.support.llm_server import Received, Reply, calls

Kind: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory"]

KINDS: tuple[Kind, ...] = ("gradient", "metaprompt", "prompt_memory")
REASON = "The answers were too long."
"""The model's reason for everything."""
MESSAGES = [
    {"role": "user", "content": "Where is Lisbon?"},
    {"role": "assistant", "content": "On the Tagus, near the Atlantic, as has been said."},
]


@dataclass(frozen=True)
class Verdict:
    """A model thinks several times, and then writes another text; None: this one is good."""

    text: str | None
    thoughts: int = 0


class Mind:
    """A model that has decided about every prompt, and which ones to change."""

    def __init__(
        self, prompts: Mapping[str, str], verdicts: Mapping[str, Verdict], chosen: Sequence[str]
    ) -> None:
        self.chosen = list(chosen)
        self._prompts = prompts
        self._verdicts = verdicts
        self._thoughts = {name: verdict.thoughts for name, verdict in verdicts.items()}

    def name_in(self, request: str) -> str:
        """Return the name of the only prompt that a request shows."""
        (name,) = (name for name, text in self._prompts.items() if text in request)
        return name

    def verdict(self, name: str) -> Verdict:
        return self._verdicts[name]

    def thinks(self, name: str) -> bool:
        """Return whether the model thinks once more before it decides."""
        self._thoughts[name] -= 1
        return self._thoughts[name] >= 0

    def results(self) -> dict[str, str]:
        """Return the expected texts by the prompts' names."""
        changed = {name: self._verdicts[name].text for name in self.chosen}
        return {name: changed.get(name) or text for name, text in self._prompts.items()}


async def agree(
    memoryd: Memoryd,
    kind: Kind,
    prompts: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
    chosen: Sequence[str] | None = None,
) -> dict[str, str]:
    """Give both the same; return the texts, which are those of the verdicts.

    A model is asked which prompts to change if `chosen` is given.
    """
    names = list(prompts) if chosen is None else chosen
    mind = Mind(prompts, verdicts, names)
    model = ChatModel(respond=_theirs(mind))
    given = [{"name": name, "prompt": text} for name, text in prompts.items()]
    state: Any = {"trajectories": [(MESSAGES, "Too long.")]}
    if chosen is None:
        optimizer = create_prompt_optimizer(model, kind=kind)
        by_theirs = {names[0]: await optimizer.ainvoke({**state, "prompt": given[0]})}
    else:
        multi = create_multi_prompt_optimizer(model, kind=kind)
        results = await multi.ainvoke({**state, "prompts": given})
        by_theirs = {result["name"]: result["prompt"] for result in results}

    memoryd.llm.respond = _ours(Mind(prompts, verdicts, names))
    job = await memoryd.job(
        "optimize-prompt",
        prompts=[{"name": name, "text": text} for name, text in prompts.items()],
        trajectories=[{"messages": MESSAGES, "feedback": {"comment": "Too long."}}],
        kind=kind,
    )
    assert job["state"] == "succeeded", job
    by_ours = {result["name"]: result["text"] for result in job["result"]["prompts"]}
    assert by_ours == by_theirs == mind.results()
    assert list(by_ours) == list(prompts)
    return by_ours


def _theirs(mind: Mind) -> Callable[[Asked], AIMessage]:
    """Return a `respond` for LangMem's optimizers."""

    def respond(asked: Asked) -> AIMessage:
        offered = set(asked.tools)
        if "Classify" in offered:
            return calling(("Classify", {"reasoning": REASON, "which": mind.chosen}))
        name = mind.name_in(asked.text)
        verdict = mind.verdict(name)
        # To leave a prompt as it is, the model has to repeat it, or to say so when it recommends.
        text = verdict.text or mind.results()[name]
        if "GeneralResponse" in offered:
            answer = {"logic": REASON, "update_prompt": True, "new_prompt": text}
            return calling(("GeneralResponse", answer))
        if "think" in offered and (mind.thinks(name) or len(offered) == 2):
            return calling(("think", {"thought": REASON}))
        if "recommend" in offered:
            return calling(("recommend", _recommendation(verdict)))
        answer = {"analysis": REASON, "improved_prompt": text}
        return calling(("OptimizedPromptOutput", answer))

    return respond


def _recommendation(verdict: Verdict) -> JSON:
    if verdict.text is None:
        return {"warrants_adjustment": False}
    said = {"hypotheses": REASON, "full_recommendations": "Keep answers short."}
    return {"warrants_adjustment": True, **said}


def _ours(mind: Mind) -> Respond:
    """Return a `respond` for memoryd's optimizers."""

    def respond(received: Received) -> Reply:
        offered = {tool.name for tool in received.tools}
        if "choose" in offered:
            return calls(("choose", {"reasoning": REASON, "which": mind.chosen}))
        shown = "\n".join([received.system, *(message.text for message in received.messages)])
        name = mind.name_in(shown)
        verdict = mind.verdict(name)
        if "revise" in offered:
            is_change = verdict.text is not None
            answer = {"logic": REASON, "update_prompt": is_change, "new_prompt": verdict.text or ""}
            return calls(("revise", answer))
        if "think" in offered and (mind.thinks(name) or len(offered) == 2):
            return calls(("think", {"thought": REASON}))
        if "recommend" in offered:
            return calls(("recommend", _recommendation(verdict)))
        return calls(("improve", {"analysis": REASON, "improved_prompt": verdict.text}))

    return respond
