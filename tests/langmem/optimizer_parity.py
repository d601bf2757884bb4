"""LangMem's prompt optimizers and memoryd's job, doing what a mind has made up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

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
from tests.langmem.verdicts import REASON, Feedback, Kind, Mind, Prompt, Trajectory, Verdict
from tests.support.llm_server import Received, Reply, calls

TALK: Trajectory = (
    [
        {"role": "user", "content": "Where is Lisbon?"},
        {"role": "assistant", "content": "On the Tagus, near the Atlantic, as has been said."},
    ],
    "Too long.",
)


class Optimizers:
    """Both ways to better prompts, and what the models were asked the last time."""

    def __init__(self, memoryd: Memoryd) -> None:
        self.memoryd = memoryd
        self.asked: list[Asked] = []
        self.received: list[Received] = []

    async def agree(
        self,
        *prompts: Prompt,
        verdicts: Mapping[str, Verdict],
        chosen: Sequence[str] | None = None,
        trajectories: Sequence[Trajectory] = (TALK,),
        kind: Kind = "gradient",
        config: JSON | None = None,
    ) -> dict[str, str]:
        """Give both the same; return the texts, which are those of the verdicts.

        A model is asked which prompts to change where `chosen` is given.
        """
        names = [prompt.name for prompt in prompts] if chosen is None else chosen
        mind = Mind(prompts, verdicts, names)
        model = ChatModel(respond=theirs(mind))
        by_theirs = await by_langmem(model, prompts, trajectories, kind, config, chosen)
        self.asked = model.asked

        llm = self.memoryd.llm
        llm.requests.clear()
        llm.respond = ours(Mind(prompts, verdicts, names))
        results = await by_memoryd(self.memoryd, prompts, trajectories, kind, config)
        self.received = llm.requests
        by_ours = {result["name"]: result["text"] for result in results}
        assert by_ours == by_theirs == mind.resulting()
        return by_ours


async def by_langmem(
    model: ChatModel,
    prompts: Sequence[Prompt],
    trajectories: Sequence[Trajectory],
    kind: Kind,
    config: JSON | None,
    chosen: Sequence[str] | None,
) -> dict[str, str]:
    """Return the texts of LangMem's optimizer by the prompts' names."""
    given = [as_theirs(prompt) for prompt in prompts]
    state: JSON = {"trajectories": list(trajectories)}
    if chosen is None and len(prompts) == 1:
        optimizer = create_prompt_optimizer(model, kind=kind, config=config)
        text = await optimizer.ainvoke({**state, "prompt": given[0]})
        return {prompts[0].name: text}
    multi = create_multi_prompt_optimizer(model, kind=kind, config=config)
    results = await multi.ainvoke({**state, "prompts": given})
    return {result["name"]: result["prompt"] for result in results}


async def by_memoryd(
    memoryd: Memoryd,
    prompts: Sequence[Prompt],
    trajectories: Sequence[Trajectory] = (TALK,),
    kind: Kind = "gradient",
    config: JSON | None = None,
) -> list[JSON]:
    """Return what came of each prompt in memoryd's job, which succeeds."""
    job = await memoryd.job(
        "optimize-prompt",
        prompts=[asdict(prompt) for prompt in prompts],
        trajectories=[
            {"messages": list(messages), "feedback": as_ours(feedback)}
            for messages, feedback in trajectories
        ],
        kind=kind,
        config=config,
    )
    assert job["state"] == "succeeded", job
    results: list[JSON] = job["result"]["prompts"]
    return results


def as_ours(feedback: Feedback) -> JSON | None:
    """Return feedback as memoryd takes it: a text is a comment."""
    return {"comment": feedback} if isinstance(feedback, str) else feedback


def as_theirs(prompt: Prompt) -> JSON:
    """Return a prompt as LangMem takes it: what is absent must not be there as None."""
    further = {
        "update_instructions": prompt.update_instructions,
        "when_to_update": prompt.when_to_update,
    }
    given = {name: text for name, text in further.items() if text is not None}
    return {"name": prompt.name, "prompt": prompt.text, **given}


def theirs(mind: Mind) -> Callable[[Asked], AIMessage]:
    """Return a `respond` for LangMem's optimizers."""

    def respond(asked: Asked) -> AIMessage:
        offered = set(asked.tools)
        if "Classify" in offered:
            return calling(("Classify", {"reasoning": REASON, "which": mind.chosen}))
        prompt = mind.about(asked.text)
        verdict = mind.verdict(prompt)
        # To leave a prompt as it is, the model has to repeat it, or to say so when it recommends.
        text = prompt.text if verdict.text is None else verdict.text
        if "GeneralResponse" in offered:
            answer = {"logic": REASON, "update_prompt": True, "new_prompt": text}
            return calling(("GeneralResponse", answer))
        if "think" in offered and (mind.thinks(prompt) or len(offered) == 2):
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


def ours(mind: Mind) -> Respond:
    """Return a `respond` for memoryd's optimizers."""

    def respond(received: Received) -> Reply:
        offered = {tool.name for tool in received.tools}
        if "choose" in offered:
            return calls(("choose", {"reasoning": REASON, "which": mind.chosen}))
        shown = "\n".join([received.system, *(message.text for message in received.messages)])
        prompt = mind.about(shown)
        verdict = mind.verdict(prompt)
        if "revise" in offered:
            wanted = verdict.text is not None
            answer = {"logic": REASON, "update_prompt": wanted, "new_prompt": verdict.text or ""}
            return calls(("revise", answer))
        if "think" in offered and (mind.thinks(prompt) or len(offered) == 2):
            return calls(("think", {"thought": REASON}))
        if "recommend" in offered:
            return calls(("recommend", _recommendation(verdict)))
        return calls(("improve", {"analysis": REASON, "improved_prompt": verdict.text}))

    return respond
