"""What goes wrong in LangMem's prompt optimisers, and what memoryd does in its place."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from tests.langmem.decisions import JSON
from tests.langmem.optimizers import TALK, Optimizers, by_memoryd
from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_multi_prompt_optimizer,
    create_prompt_optimizer,
)
from tests.langmem.ours import Memoryd
from tests.langmem.test_prompt_optimizers import shown_by_ours, shown_by_theirs
from tests.langmem.verdicts import Kind, Prompt, Verdict
from tests.support.llm_server import Received, Reply, calls, refuses, says

pytestmark = pytest.mark.slow  # each waits for workers or models

WARRANTED: JSON = {
    "warrants_adjustment": True,
    "hypotheses": "It was too long.",
    "full_recommendations": "Be brief.",
}
REPAIR: JSON = {"json_doc_id": "call_0", "planned_edits": "-", "patches": []}
JSON_PROMPT = 'Answer as {"city": "Rome", "where": {"river": "Tiber"}}.'


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


async def test_lists_of_messages_are_misread_by_langmem_and_refused_by_memoryd(
    memoryd: Memoryd,
) -> None:
    messages, _ = TALK
    _, model = await optimized_by_langmem("Old.", writing("New."), trajectories=[messages])
    before, _, after = model.asked[0].text.partition("<FEEDBACK>")
    assert "Where is Lisbon?" not in before  # of the first message there are the words
    assert "role\ncontent" in before
    assert "On the Tagus" in after  # and the second passes for feedback

    problem = await memoryd.job(
        "optimize-prompt",
        status=422,
        prompt={"name": "prompt", "text": "Old."},
        trajectories=[messages],
    )
    (error,) = problem["errors"]
    assert error["field"] == "trajectories[0]"
    assert "is a list" in error["detail"]


@pytest.mark.parametrize("kind", ["gradient", "metaprompt"])
async def test_a_prompt_with_json_crashes_langmem_and_is_improved_by_memoryd(
    memoryd: Memoryd, kind: Kind
) -> None:
    text = 'Answer as {"city": "Turin", "where": {"river": "Po"}}.'
    with pytest.raises(IndexError):
        await optimized_by_langmem(JSON_PROMPT, writing(text), kind)
    result = await optimized_by_memoryd(memoryd, JSON_PROMPT, answering(text), kind)
    assert (result["outcome"], result["text"]) == ("improved", text)


async def test_json_that_stays_gets_another_brace_in_langmem_and_stays_in_memoryd(
    memoryd: Memoryd,
) -> None:
    text = f"{JSON_PROMPT} Be brief."
    by_theirs, _ = await optimized_by_langmem(JSON_PROMPT, writing(text))
    assert by_theirs == 'Answer as {"city": "Rome", "where": {"river": "Tiber"}}}. Be brief.'
    result = await optimized_by_memoryd(memoryd, JSON_PROMPT, answering(text))
    assert result["text"] == text


@pytest.mark.parametrize("kind", ["gradient", "metaprompt", "prompt_memory"])
async def test_other_braces_are_doubled_by_langmem_and_kept_by_memoryd(
    memoryd: Memoryd, kind: Kind
) -> None:
    text = 'Answer as {"city": "Rome"}.'
    by_theirs, _ = await optimized_by_langmem("Answer.", writing(text), kind)
    assert by_theirs == 'Answer as {{"city": "Rome"}}.'
    result = await optimized_by_memoryd(memoryd, "Answer.", answering(text), kind)
    assert result["text"] == text


async def test_variables_in_double_braces_are_torn_by_langmem_and_kept_by_memoryd(
    memoryd: Memoryd,
) -> None:
    text = "Greet {{name}} briefly."
    by_theirs, _ = await optimized_by_langmem("Greet {{name}}.", writing(text))
    assert by_theirs == "Greet {{name}}} briefly."
    result = await optimized_by_memoryd(memoryd, "Greet {{name}}.", answering(text))
    assert result["text"] == text


@pytest.mark.parametrize("kind", ["gradient", "metaprompt"])
async def test_a_lost_variable_crashes_langmem_and_memoryd_asks_for_it(
    memoryd: Memoryd, kind: Kind
) -> None:
    texts = ["Greet briefly.", "Greet {name} briefly."]
    with pytest.raises(IndexError):
        await optimized_by_langmem("Greet {name}.", writing(texts[0]), kind)

    result = await optimized_by_memoryd(memoryd, "Greet {name}.", answering(*texts), kind)
    assert (result["outcome"], result["text"]) == ("improved", texts[1])
    told = [r.content for message in memoryd.llm.requests[-1].messages for r in message.results]
    assert "{name}" in told[-1]


@pytest.mark.parametrize("kind", ["gradient", "metaprompt", "prompt_memory"])
async def test_a_prompt_without_its_variables_never_replaces_one_in_memoryd(
    memoryd: Memoryd, kind: Kind
) -> None:
    if kind == "prompt_memory":  # the others crash
        by_theirs, _ = await optimized_by_langmem("Greet {name}.", writing("Greet."), kind)
        assert by_theirs == "Greet."
    result = await optimized_by_memoryd(memoryd, "Greet {name}.", answering("Greet."), kind)
    assert (result["outcome"], result["changed"]) == ("rejected", False)
    assert result["text"] == "Greet {name}."
    assert "{name}" in result["reason"]


async def test_metaprompt_never_stops_early_in_langmem_and_does_in_memoryd(
    memoryd: Memoryd,
) -> None:
    _, model = await optimized_by_langmem("Answer.", writing("Answer briefly."), "metaprompt")
    assert len(model.asked) == 5
    result = await optimized_by_memoryd(
        memoryd, "Answer.", answering("Answer briefly."), "metaprompt"
    )
    assert result["text"] == "Answer briefly."
    assert len(memoryd.llm.requests) == 1


async def test_metaprompt_cannot_leave_a_prompt_with_variables_alone_in_langmem_and_can_in_memoryd(
    memoryd: Memoryd,
) -> None:
    with pytest.raises(IndexError):
        await optimized_by_langmem("Greet {name}.", writing("No recommendations."), "metaprompt")
    result = await optimized_by_memoryd(memoryd, "Greet {name}.", answering(None), "metaprompt")
    assert (result["outcome"], result["text"]) == ("not_warranted", "Greet {name}.")


async def test_prompt_memory_that_wants_no_change_erases_the_prompt_in_langmem_and_not_in_memoryd(
    memoryd: Memoryd,
) -> None:
    by_theirs, _ = await optimized_by_langmem("Old.", writing("", update=False), "prompt_memory")
    assert by_theirs == ""
    no_change = answering("", update=False)
    result = await optimized_by_memoryd(memoryd, "Old.", no_change, "prompt_memory")
    assert (result["outcome"], result["text"]) == ("not_warranted", "Old.")


@pytest.mark.parametrize("kind", ["gradient", "prompt_memory"])
@pytest.mark.parametrize("text", ["", " \n"], ids=["empty", "blank"])
async def test_an_empty_answer_is_the_new_prompt_in_langmem_and_none_in_memoryd(
    memoryd: Memoryd, kind: Kind, text: str
) -> None:
    by_theirs, _ = await optimized_by_langmem("Old.", writing(text), kind)
    assert by_theirs == text
    result = await optimized_by_memoryd(memoryd, "Old.", answering(text), kind)
    assert (result["changed"], result["text"]) == (False, "Old.")


@pytest.mark.parametrize("kind", ["gradient", "metaprompt", "prompt_memory"])
@pytest.mark.parametrize("reply", [says("I cannot."), refuses()], ids=["talks", "refuses"])
async def test_a_model_that_only_talks_crashes_langmem_and_changes_nothing_in_memoryd(
    memoryd: Memoryd, kind: Kind, reply: Reply
) -> None:
    with pytest.raises((ValueError, IndexError, TypeError)):
        await optimized_by_langmem("Old.", lambda _: AIMessage("I cannot."), kind)
    result = await optimized_by_memoryd(memoryd, "Old.", lambda _: reply, kind)
    assert (result["outcome"], result["text"]) == ("rejected", "Old.")
    assert "I cannot" in result["reason"]


async def test_what_was_cut_off_is_taken_by_langmem_and_not_by_memoryd(memoryd: Memoryd) -> None:
    cut = "You are a guide to the cities of"

    def respond(asked: Asked) -> AIMessage:
        reply = writing(cut)(asked)
        return reply.model_copy(update={"response_metadata": {"finish_reason": "length"}})

    by_theirs, _ = await optimized_by_langmem("Old.", respond, "prompt_memory")
    assert by_theirs == cut

    def shortened(received: Received) -> Reply:
        whole = answering(cut)(received)
        return Reply(calls=whole.calls, stop="length")

    result = await optimized_by_memoryd(memoryd, "Old.", shortened, "prompt_memory")
    assert (result["outcome"], result["text"]) == ("rejected", "Old.")
    assert "cut off" in result["reason"]


async def test_when_to_update_is_kept_from_langmems_chooser_and_shown_to_memoryds(
    memoryd: Memoryd,
) -> None:
    prompts = [
        Prompt("writer", "Write.", "Change one sentence.", "When a report is badly written."),
        Prompt("searcher", "Search.", None, "When sources are missing."),
    ]
    optimizers = Optimizers(memoryd)
    await optimizers.agree(
        *prompts, verdicts={"writer": Verdict(None), "searcher": Verdict(None)}, chosen=[]
    )
    theirs, ours = shown_by_theirs(optimizers.asked), shown_by_ours(optimizers.received)
    for text in (
        "Change one sentence.",
        "When a report is badly written.",
        "When sources are missing.",
    ):
        assert text not in theirs
        assert text in ours


async def test_choosing_what_is_no_prompt_crashes_langmem_and_is_asked_again_by_memoryd(
    memoryd: Memoryd,
) -> None:
    prompts = [Prompt("writer", "Write."), Prompt("searcher", "Search.")]

    def respond(asked: Asked) -> AIMessage:
        if "Classify" in asked.tools:
            return calling(("Classify", {"reasoning": "-", "which": ["editor", "writer"]}))
        return writing("Write briefly.")(asked)

    multi = create_multi_prompt_optimizer(ChatModel(respond=respond))
    given = [{"name": prompt.name, "prompt": prompt.text} for prompt in prompts]
    with pytest.raises(IndexError):
        await multi.ainvoke({"trajectories": [TALK], "prompts": given})

    def choosing(received: Received) -> Reply:
        if "choose" in {tool.name for tool in received.tools}:
            return calls(("choose", {"reasoning": "-", "which": ["editor", "writer"]}))
        return answering("Write briefly.")(received)

    memoryd.llm.respond = choosing
    results = await by_memoryd(memoryd, prompts)
    outcomes = {result["name"]: result["outcome"] for result in results}
    assert outcomes == {"writer": "improved", "searcher": "not_chosen"}


async def test_absent_instructions_are_the_word_none_in_langmem_and_absent_in_memoryd(
    memoryd: Memoryd,
) -> None:
    prompt = {"name": "prompt", "prompt": "Old.", "update_instructions": None}
    _, model = await optimized_by_langmem(prompt, writing("New."))
    assert "<update_instructions>\nNone\n</update_instructions>" in model.asked[0].text

    await optimized_by_memoryd(memoryd, "Old.", answering("New."))
    assert "None" not in shown_by_ours(memoryd.llm.requests[:1])


async def test_contents_in_blocks_crash_langmem_and_are_read_by_memoryd(memoryd: Memoryd) -> None:
    blocks = [{"type": "text", "text": "Where is Lisbon?"}]
    messages = [{"role": "user", "content": blocks}]
    with pytest.raises(TypeError):
        await optimized_by_langmem(
            "Old.", writing("New."), "prompt_memory", trajectories=[(messages, "Too long.")]
        )
    memoryd.llm.respond = answering("New.")
    trajectories = [(messages, "Too long.")]
    (result,) = await by_memoryd(memoryd, [Prompt("prompt", "Old.")], trajectories, "prompt_memory")
    assert result["text"] == "New."
    assert "Where is Lisbon?" in shown_by_ours(memoryd.llm.requests)


async def test_no_conversations_are_a_reason_to_ask_for_langmem_and_none_for_memoryd(
    memoryd: Memoryd,
) -> None:
    by_theirs, _ = await optimized_by_langmem(
        "Old.", writing("New."), "prompt_memory", trajectories=[]
    )
    assert by_theirs == "New."
    memoryd.llm.respond = answering("New.")
    (result,) = await by_memoryd(memoryd, [Prompt("prompt", "Old.")], [], "prompt_memory")
    assert (result["outcome"], result["text"]) == ("not_warranted", "Old.")
    assert memoryd.llm.requests == []


async def test_requests_of_ones_own_with_json_crash_langmem_and_are_sent_by_memoryd(
    memoryd: Memoryd,
) -> None:
    config: JSON = {"gradient_prompt": 'Judge {prompt} by {"tone": 1}. {trajectories}'}
    with pytest.raises(KeyError):
        await optimized_by_langmem("Old.", writing("New."), config=config)
    memoryd.llm.respond = answering("New.")
    (result,) = await by_memoryd(memoryd, [Prompt("prompt", "Old.")], config=config)
    assert result["text"] == "New."
    assert 'Judge Old. by {"tone": 1}.' in shown_by_ours(memoryd.llm.requests)


async def test_a_prompt_that_begins_with_no_recommendations_is_lost_by_langmem_and_not_by_memoryd(
    memoryd: Memoryd,
) -> None:
    text = "No recommendations without a source, and none of places that have closed."
    by_theirs, _ = await optimized_by_langmem("Recommend.", writing(text), "metaprompt")
    assert by_theirs == "Recommend."
    result = await optimized_by_memoryd(memoryd, "Recommend.", answering(text), "metaprompt")
    assert (result["outcome"], result["text"]) == ("improved", text)
