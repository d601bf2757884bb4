from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.conversations.content import MAX_BYTES
from app.conversations.kinds import MEMORY, PROFILE
from app.conversations.types import LLMTask, Memory, Proposal, Rejection, Rights, Turn
from app.extraction.loop import propose
from app.providers.llm.base import Completion, Verbatim
from tests.extraction.make_examples import DIRECTORY, EXAMPLES, shown
from tests.support.scripted_model import (
    DONE,
    NOTHING,
    ScriptedModel,
    calls,
    delete,
    delete_edit,
    insert,
    insert_edit,
    memory,
    outlines,
    says,
    task,
    update,
    update_edit,
)

PORTO = memory("m1", "Ana lives in Porto.")
NUTS = memory("m2", "Ana is allergic to nuts.")


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_models_are_sent_is_as_pinned(name: str) -> None:
    pinned = (DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
    assert shown(name) == pinned, "`python -m tests.extraction.make_examples` writes it anew"


async def test_calls_become_changes_with_their_particulars() -> None:
    model = ScriptedModel(
        calls(
            insert("Ana likes tea.", importance=1, valid_from="2026-05-03", message_ids=["2", 1]),
            update("m1", "Ana lives in Lisbon.", valid_from="2026-05"),
            delete("m2", "Ana says it was a mistake"),
        )
    )
    turns = [Turn("a", "user", "Tea!"), Turn("b", "user", "And no allergy.")]
    proposed = await propose(model, task(PORTO, NUTS, turns=turns))
    assert replace(proposed, edits=outlines(proposed.edits)) == Proposal(
        edits=(
            insert_edit(
                "m3",
                "memory",
                {"content": "Ana likes tea."},
                importance=1.0,
                valid_from=datetime(2026, 5, 3, tzinfo=UTC),
                message_ids=("b", "a"),
            ),
            update_edit(
                "m1",
                "memory",
                {"content": "Ana lives in Lisbon."},
                valid_from=datetime(2026, 5, 1, tzinfo=UTC),
            ),
            delete_edit("m2", "Ana says it was a mistake"),
        ),
        steps=1,
    )
    assert model.purposes == ["extract"]


async def test_doing_nothing_takes_one_request_and_changes_nothing() -> None:
    model = ScriptedModel(NOTHING)
    assert await propose(model, task(PORTO, max_steps=5)) == Proposal(steps=1)
    assert model.requests[0].tool_choice == "any"


@pytest.mark.parametrize(
    "idle",
    [
        task(turns=[]),
        task(PORTO, context_turns=1),
        task(rights=Rights(inserts=False)),
        task(PORTO, rights=Rights(inserts=False, updates=False)),
    ],
    ids=["nothing to tidy", "nothing new said", "nothing to update", "nothing permitted"],
)
async def test_no_model_is_asked_where_it_could_do_nothing(idle: LLMTask) -> None:
    assert await propose(ScriptedModel(), idle) == Proposal()


async def test_a_failing_call_goes_back_once_while_the_others_stand() -> None:
    model = ScriptedModel(
        calls(insert("Ana likes tea."), ("insert_memory", {"content": {"text": "Ana runs."}})),
        calls(insert("Ana runs.")),
    )
    proposed = await propose(model, task())
    assert [change.memory_id for change in proposed.edits] == ["m1", "m2"]
    assert proposed.rejected == ()
    assert model.purposes == ["extract", "repair"]
    assert model.results[0] == (False, "Memory m1 inserted.")
    failed, reason = model.results[1]
    assert failed
    assert '"content" is a required property' in reason


async def test_a_call_that_fails_again_is_rejected_with_the_newer_reason() -> None:
    model = ScriptedModel(
        calls(insert("a", importance=2), insert("b")), calls(("insert_memory", {}))
    )
    proposed = await propose(model, task())
    assert [change.memory_id for change in proposed.edits] == ["m1"]
    assert proposed.rejected == (Rejection("insert_memory", "content is missing"),)
    assert len(model.requests) == 2


async def test_a_turn_goes_back_word_for_word_with_the_models_thoughts() -> None:
    thought = replace(calls(insert("a", importance=2)), verbatim=Verbatim("m", "signed"))
    model = ScriptedModel(thought, calls(insert("a")))
    await propose(model, task())
    assert model.requests[1].messages[1].verbatim == Verbatim("m", "signed")
    broken = replace(calls(insert("a\ud800")), verbatim=Verbatim("m", "signed"))
    model = ScriptedModel(broken, calls(insert("a")))
    await propose(model, task())
    assert model.requests[1].messages[1].verbatim is None


async def test_no_memory_is_lost_for_an_importance_that_stays_wrong() -> None:
    badly = calls(insert("a", importance="high", valid_from="last week"))
    model = ScriptedModel(badly, badly)
    proposed = await propose(model, task())
    assert outlines(proposed.edits) == (insert_edit("m1", "memory", {"content": "a"}),)
    assert proposed.rejected == ()


async def test_a_call_that_is_not_sent_again_is_rejected_with_its_reason() -> None:
    model = ScriptedModel(
        calls(insert("a", importance=2), update("m9", "b"), update("m1", "Ana moved.")),
        calls(insert("a")),
    )
    proposed = await propose(model, task(PORTO))
    assert [change.memory_id for change in proposed.edits] == ["m1", "m2"]
    assert proposed.rejected == (
        Rejection("update_memory", 'there is no memory with the id "m9"; there are m1'),
    )


@pytest.mark.parametrize("answer", [NOTHING, says("I give up."), says(""), says("", "refusal")])
async def test_calls_that_the_model_gives_up_are_rejected(answer: Completion) -> None:
    model = ScriptedModel(calls(insert("a", importance=2)), answer)
    proposed = await propose(model, task())
    assert outlines(proposed.edits) == ()
    assert [rejected.tool for rejected in proposed.rejected] == ["insert_memory"]


async def test_a_repair_may_insert_something_new() -> None:
    model = ScriptedModel(calls(update("m9", "b")), calls(insert("b"), insert("c")))
    proposed = await propose(model, task(PORTO))
    assert [change.memory_id for change in proposed.edits] == ["m2", "m3"]
    assert proposed.rejected == ()


async def test_text_instead_of_calls_is_asked_about_once() -> None:
    model = ScriptedModel(says("Ana likes tea."), calls(insert("Ana likes tea.")))
    proposed = await propose(model, task())
    assert len(proposed.edits) == 1
    assert proposed.rejected == ()
    assert [message.role for message in model.requests[1].messages] == ["user", "assistant", "user"]
    assert "you called no tool" in model.requests[1].messages[-1].text


async def test_an_empty_reply_is_asked_about_without_an_empty_message() -> None:
    model = ScriptedModel(says(" \n"), NOTHING)
    assert (await propose(model, task())).rejected == ()
    (message,) = model.requests[1].messages
    assert message.text.startswith("Today is Tuesday, 2026-05-05.")
    assert "you called no tool" in message.text


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (
            [says("Hello."), says("Hello again.")],
            "the model answered with text instead of calls of tools: Hello again.",
        ),
        ([says(""), says("")], "the model's reply was empty"),
        ([says("I", "length"), says("I", "length")], "the reply was cut off before any call"),
        ([says("I cannot.", "refusal")], "the model refused: I cannot."),
        ([says("", "refusal")], "the model refused"),
        ([calls(insert("a"), stop="refusal")], "the model refused"),
        ([says("Hello."), says("I cannot.", "refusal")], "the model refused: I cannot."),
        ([says("\ud800\x00", "refusal")], "the model refused: \ufffd\ufffd"),
    ],
)
async def test_a_model_without_calls_changes_nothing_and_it_is_said(
    replies: list[Completion], reason: str
) -> None:
    model = ScriptedModel(*replies)
    proposed = await propose(model, task(PORTO, max_steps=3))
    assert outlines(proposed.edits) == ()
    (rejected,) = proposed.rejected
    assert rejected.tool == ""
    assert rejected.reason.startswith(reason)
    assert len(model.requests) == len(replies)


async def test_of_a_reply_that_was_cut_off_the_last_call_goes_back() -> None:
    model = ScriptedModel(
        calls(insert("a"), ("insert_memory", '{"content": {"cont'), stop="length"),
        calls(insert("b")),
    )
    proposed = await propose(model, task())
    assert [change.memory_id for change in proposed.edits] == ["m1", "m2"]
    assert proposed.rejected == ()
    assert model.results[1] == (True, "Not done: the reply was cut off in this call.")
    assert "cut off" in model.requests[1].messages[-1].text


async def test_a_call_that_was_cut_off_is_not_carried_out_even_if_it_can_be_read() -> None:
    model = ScriptedModel(calls(insert("Ana is allergic to"), stop="length"), NOTHING)
    proposed = await propose(model, task())
    assert outlines(proposed.edits) == ()
    assert proposed.rejected == (Rejection("insert_memory", "the reply was cut off in this call"),)


async def test_calls_after_the_hundredth_are_rejected_unread() -> None:
    model = ScriptedModel(calls(*(insert(f"fact {n}") for n in range(102))))
    proposed = await propose(model, task())
    assert len(proposed.edits) == 100
    assert (
        proposed.rejected
        == (Rejection("insert_memory", "there are more than 100 calls in one reply"),) * 2
    )
    assert len(model.requests) == 1


async def test_a_reply_that_deletes_everything_is_proposed_as_it_is() -> None:
    model = ScriptedModel(calls(delete("m1"), delete("m2")))
    proposed = await propose(model, task(PORTO, NUTS))
    assert outlines(proposed.edits) == (delete_edit("m1", "wrong"), delete_edit("m2", "wrong"))


async def test_the_next_step_sees_what_the_last_one_left() -> None:
    model = ScriptedModel(
        calls(insert("Ana runs.")),
        calls(update("m2", "Ana runs daily."), insert("Ana swims.")),
        calls(delete("m3"), ("done", {})),
    )
    proposed = await propose(model, task(PORTO, max_steps=10))
    assert outlines(proposed.edits) == (
        insert_edit("m2", "memory", {"content": "Ana runs daily."}, importance=0.5),
    )
    assert proposed.steps == 3
    assert model.results == [(False, "Memory m2 updated."), (False, "Memory m3 inserted.")]
    last = model.requests[-1].messages[-1].text
    assert '<memory id="m2" kind="memory" importance="0.5">{"content": "Ana runs daily."}' in last
    assert "Porto" not in last
    assert model.tool_names == [
        *("insert_memory", "update_memory", "delete_memory", "no_change", "done")
    ]
    assert [tool.name for tool in model.requests[0].tools][-1] == "no_change"


@pytest.mark.parametrize(
    "last",
    [DONE, NOTHING, says("All is well."), says(""), calls(update("m1", "Ana lives in Lisbon."))],
    ids=["done", "no_change", "text", "empty", "nothing new"],
)
async def test_steps_end_when_there_is_nothing_more_to_do(last: Completion) -> None:
    model = ScriptedModel(calls(update("m1", "Ana lives in Lisbon.")), last)
    proposed = await propose(model, task(PORTO, max_steps=5))
    assert replace(proposed, edits=outlines(proposed.edits)) == Proposal(
        (update_edit("m1", "memory", {"content": "Ana lives in Lisbon."}),), steps=2
    )


async def test_a_refusal_in_a_later_step_leaves_the_earlier_ones() -> None:
    model = ScriptedModel(calls(insert("a")), says("No.", "refusal"))
    proposed = await propose(model, task(max_steps=3))
    assert len(proposed.edits) == 1
    assert proposed.rejected == (Rejection("", "the model refused: No."),)


async def test_steps_end_at_their_number() -> None:
    model = ScriptedModel(calls(insert("a")), calls(insert("b")))
    assert (await propose(model, task(max_steps=2))).steps == 2
    assert len(model.requests) == 2


async def test_no_change_beside_changes_keeps_them_and_ends() -> None:
    model = ScriptedModel(calls(insert("a"), ("no_change", {})))
    assert len((await propose(model, task(max_steps=4))).edits) == 1


async def test_a_repair_in_one_step_is_answered_in_the_next() -> None:
    model = ScriptedModel(calls(insert("a", importance=2)), calls(insert("a")), DONE)
    await propose(model, task(max_steps=2))
    assert model.results == [(False, "Memory m1 inserted.")]
    assert model.purposes == ["extract", "repair", "extract"]


async def test_only_the_first_of_two_profiles_is_kept() -> None:
    profile = ("insert_profile", {"content": {"name": "Ana"}, "importance": 0.9})
    edit = {"op": "add", "path": "/language", "value": "pt"}
    model = ScriptedModel(
        calls(profile, profile), calls(("update_memory", {"id": "m1", "edits": [edit]}))
    )
    proposed = await propose(model, task(kinds=[PROFILE], rights=Rights(inserts=False)))
    assert outlines(proposed.edits) == (
        insert_edit("m1", "profile", {"name": "Ana", "language": "pt"}, importance=0.9),
    )
    assert proposed.rejected == ()
    assert model.tool_names == ["update_memory", "no_change"]


async def test_tidying_shows_no_conversation_and_asks_for_no_messages() -> None:
    model = ScriptedModel(calls(delete("m2")))
    proposed = await propose(model, task(PORTO, NUTS, turns=[]))
    assert outlines(proposed.edits) == (delete_edit("m2", "wrong"),)
    assert model.purposes == ["tidy"]
    assert "message_ids" not in str(model.requests[0].tools)
    assert "<conversation>" not in str(model.requests[0].messages)


async def test_half_characters_are_not_sent_back_to_the_model() -> None:
    model = ScriptedModel(calls(insert("smile \ud83d"), text="\ud83d"), calls(insert("a smile")))
    proposed = await propose(model, task())
    assert len(proposed.edits) == 1
    str(model.requests[1]).encode()
    assert "U+D83D" in model.results[0][1]


async def test_memories_of_other_kinds_may_be_edited_without_a_schema() -> None:
    model = ScriptedModel(
        calls(("update_memory", {"id": "m1", "edits": [{"op": "remove", "path": "/old"}]}))
    )
    proposed = await propose(model, task(Memory("m1", None, {"old": 1, "new": 2})))
    assert outlines(proposed.edits) == (update_edit("m1", None, {"new": 2}),)


async def test_content_that_is_too_large_goes_back() -> None:
    model = ScriptedModel(calls(insert("a" * MAX_BYTES)), NOTHING)
    proposed = await propose(model, task())
    assert proposed.rejected[0].reason == "content is 65,551 bytes of JSON; at most 65,536 are kept"


async def test_a_kind_beside_others_is_inserted_under_its_name() -> None:
    model = ScriptedModel(calls(("insert_profile", {"content": {"name": "Ana"}})))
    (change,) = (await propose(model, task(kinds=[MEMORY, PROFILE]))).edits
    assert change == insert_edit("m1", "profile", {"name": "Ana"})
