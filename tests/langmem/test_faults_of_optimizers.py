"""What goes wrong in LangMem's prompt optimisers, and what memoryd does in its place."""

import pytest
from langchain_core.messages import AIMessage

from tests.langmem.optimizers import TALK, Optimizers, by_memoryd
from tests.langmem.original import (
    Asked,
    ChatModel,
    calling,
    create_multi_prompt_optimizer,
)
from tests.langmem.ours import Memoryd
from tests.langmem.test_prompt_optimizers import shown_by_ours, shown_by_theirs
from tests.langmem.verdicts import Kind, Prompt, Verdict
from tests.langmem.writers import (
    answering,
    optimized_by_langmem,
    optimized_by_memoryd,
    writing,
)
from tests.support.llm_server import Received, Reply, calls, refuses, says

pytestmark = pytest.mark.slow  # each waits for workers or models


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


async def test_a_prompt_that_begins_with_no_recommendations_is_lost_by_langmem_and_not_by_memoryd(
    memoryd: Memoryd,
) -> None:
    text = "No recommendations without a source, and none of places that have closed."
    by_theirs, _ = await optimized_by_langmem("Recommend.", writing(text), "metaprompt")
    assert by_theirs == "Recommend."
    result = await optimized_by_memoryd(memoryd, "Recommend.", answering(text), "metaprompt")
    assert (result["outcome"], result["text"]) == ("improved", text)
