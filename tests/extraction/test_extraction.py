from dataclasses import replace
from typing import Any

import pytest

from app.conversations.call_habits import ENOUGH_TIMES, FEATURE, CallHabit, CallHabits
from app.conversations.dialogue import NoAnswerError, RefusalError
from app.conversations.kinds import MEMORY, PROFILE
from app.conversations.memories import (
    MAX_CONTENT_BYTES,
    Edit,
    LLMTask,
    Memory,
    Proposal,
    Rejection,
    Rights,
)
from app.conversations.messages import Turn
from app.extraction.loop import MAX_CUT_REPLIES, MAX_FURTHER_REPLIES, propose
from app.providers.capabilities import Capabilities
from app.providers.llm import Completion, Verbatim
from app.providers.provider import Provider
from app.schemas import parse_date
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
WRONG = insert("a", importance=2)
"""A call that goes back to the model."""


OUT_OF_RANGE = {"insert_memory": "importance must be from 0 to 1"}


def inserted(number: int, text: str, importance: float | None = 0.5) -> Edit:
    return insert_edit(f"m{number}", "memory", {"content": text}, importance)


@pytest.mark.parametrize("name", EXAMPLES)
def test_models_are_sent_the_pinned_texts(name: str) -> None:
    pinned = (DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
    assert shown(name) == pinned, "`python -m tests.extraction.make_examples` rewrites it"


async def test_calls_become_edits_with_all_their_arguments() -> None:
    model = ScriptedModel(
        calls(
            insert("Ana likes tea.", importance=1, valid_from="2026-05-03", message_ids=["2", 1]),
            update("m1", "Ana lives in Lisbon.", valid_from="2026-05"),
            delete("m2", "Ana says it was a mistake"),
        )
    )
    turns = [Turn("a", "user", "Tea!"), Turn("b", "user", "And no allergy.")]
    proposed = await propose(model, task(PORTO, NUTS, turns=turns))
    tea, lisbon = {"content": "Ana likes tea."}, {"content": "Ana lives in Lisbon."}
    assert replace(proposed, edits=outlines(proposed.edits)) == Proposal(
        edits=(
            insert_edit("m3", "memory", tea, 1.0, parse_date("2026-05-03"), ("b", "a")),
            update_edit("m1", "memory", lisbon, valid_from=parse_date("2026-05")),
            delete_edit("m2", "Ana says it was a mistake"),
        ),
        steps=1,
    )
    assert model.purposes == ["extract"]


async def test_a_model_may_change_nothing_in_one_request() -> None:
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
    ids=["nothing to tidy", "no new message", "nothing to update", "nothing permitted"],
)
async def test_no_model_is_asked_if_it_could_do_nothing(idle: LLMTask) -> None:
    assert await propose(ScriptedModel(), idle) == Proposal()


@pytest.mark.parametrize(
    ("replies", "edits", "rejected"),
    [
        (
            [calls(insert("a"), ("insert_memory", {"content": {"x": 1}})), calls(insert("b"))],
            [inserted(1, "a"), inserted(2, "b")],
            {},
        ),
        (
            [calls(WRONG, insert("b")), calls(("insert_memory", {}))],
            [inserted(1, "b")],
            {"insert_memory": "content is missing"},
        ),
        (
            [calls(WRONG, update("m9", "b")), calls(insert("a"))],
            [inserted(1, "a")],
            {"update_memory": "there is no tool"},
        ),
        ([calls(update("m9", "b")), calls(insert("b"), insert("c"))],
         [inserted(1, "b"), inserted(2, "c")], {}),
        *(
            ([calls(WRONG, insert("b")), answer], [inserted(1, "b")], OUT_OF_RANGE)
            for answer in (NOTHING, says("I give up."), says(""), says("", "refusal"))
        ),
        ([calls(WRONG), NOTHING], [], OUT_OF_RANGE),
        (
            [calls(insert("a", importance="so-so", valid_from="last week"))] * 2,
            [inserted(1, "a", None)],
            {},
        ),
        (
            [calls(insert("a"), ("insert_memory", '{"content": {"cont'), stop="length"),
             calls(insert("b"))],
            [inserted(1, "a"), inserted(2, "b")],
            {},
        ),
        (
            [calls(insert("Ana is allergic to"), stop="length"), NOTHING],
            [],
            {"insert_memory": "the reply was cut off in this call"},
        ),
        (
            [calls(insert("a" * MAX_CONTENT_BYTES)), NOTHING],
            [],
            {"insert_memory": "content is 65,551 bytes of JSON; at most 65,536 are kept"},
        ),
    ],
    ids=[
        *("repaired", "wrong again", "not repaired", "new calls in a repair"),
        *("no change", "text", "empty", "refusal", "nothing after all", "details left out"),
        *("cut off", "cut off but readable", "too large"),
    ],
)  # fmt: skip
async def test_failing_calls_go_back_once_and_the_others_stand(
    replies: list[Completion], edits: list[Edit], rejected: dict[str, str]
) -> None:
    model = ScriptedModel(*replies)
    proposed = await propose(model, task())
    assert outlines(proposed.edits) == tuple(edits)
    assert [rejection.tool for rejection in proposed.rejected] == list(rejected)
    for rejection in proposed.rejected:
        assert rejection.reason.startswith(rejected[rejection.tool])
    assert model.purposes == ["extract", "repair"]


async def test_replies_that_are_cut_off_go_on_as_long_as_they_get_further() -> None:
    replies = [calls(insert(f"fact {n}"), insert(f"fact {n + 1}"), stop="length") for n in range(9)]
    model = ScriptedModel(*replies[:3], calls(insert("fact 3")))
    proposed = await propose(model, task())
    assert [edit.content for edit in proposed.edits] == [{"content": f"fact {n}"} for n in range(4)]
    assert (proposed.rejected, len(model.requests)) == ((), 4)
    model = ScriptedModel(*replies)
    proposed = await propose(model, task())
    assert len(model.requests) == len(proposed.edits) == 2 + MAX_CUT_REPLIES
    (rejected,) = proposed.rejected
    assert rejected.reason == "the reply was cut off in this call"


async def test_a_repair_shows_the_result_of_every_call() -> None:
    wrong = calls(insert("b"), insert("smile \ud83d"), WRONG, text="\ud83d", stop="length")
    model = ScriptedModel(wrong, NOTHING)
    await propose(model, task())
    done, unstorable, cut = model.results
    assert done == (False, "Memory m1 inserted.")
    assert unstorable[0]
    assert "U+D83D" in unstorable[1]
    assert cut == (True, "Not done: the reply was cut off in this call.")
    assert "cut off" in model.requests[1].messages[-1].text
    str(model.requests[1]).encode()  # half characters are not sent back
    for text, verbatim in (("a", Verbatim("m", "signed")), ("a\ud800", None)):
        first = replace(calls(insert(text, importance=2)), verbatim=Verbatim("m", "signed"))
        model = ScriptedModel(first, calls(insert("a")))
        await propose(model, task())
        assert model.requests[1].messages[1].verbatim == verbatim


async def test_a_model_that_calls_no_tool_is_asked_once_more() -> None:
    model = ScriptedModel(says("Ana likes tea."), calls(insert("Ana likes tea.")))
    proposed = await propose(model, task())
    assert (len(proposed.edits), proposed.rejected) == (1, ())
    assert [message.role for message in model.requests[1].messages] == ["user", "assistant", "user"]
    assert "you called no tool" in model.requests[1].messages[-1].text
    model = ScriptedModel(says(" \n"), NOTHING)
    assert (await propose(model, task())).rejected == ()
    (message,) = model.requests[1].messages  # no empty message is sent back
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
        ([calls(insert("a"), stop="refusal")], "the model refused"),
        ([says("Hello."), says("I cannot.", "refusal")], "the model refused: I cannot."),
        ([says("\ud800\x00", "refusal")], "the model refused: \ufffd\ufffd"),
        *(
            ([calls(WRONG), answer], "insert_memory failed, because importance must be from 0 to 1")
            for answer in (says("I give up."), says(""), calls(("chat", {})))
        ),
        ([calls(WRONG), says("No.", "refusal")], "the model refused: No."),
    ],
)
async def test_a_model_that_answers_without_a_valid_call_has_failed(
    replies: list[Completion], reason: str
) -> None:
    model = ScriptedModel(*replies)
    with pytest.raises(NoAnswerError) as caught:
        await propose(model, task(PORTO, max_steps=3))
    assert caught.value.reason.startswith(reason) or "there is no tool" in caught.value.reason
    assert isinstance(caught.value, RefusalError) == ("refused" in reason)
    assert [reply.text for reply in caught.value.replies] == [reply.text for reply in replies]
    assert len(model.requests) == len(replies)


async def test_calls_after_the_hundredth_are_rejected_unread() -> None:
    model = ScriptedModel(calls(*(insert(f"fact {n}") for n in range(102))))
    proposed = await propose(model, task())
    assert len(proposed.edits) == 100
    reason = "there are more than 100 calls in one reply"
    assert proposed.rejected == (Rejection("insert_memory", reason),) * 2
    assert len(model.requests) == 1


async def test_the_next_step_sees_the_memories_as_the_last_one_left_them() -> None:
    model = ScriptedModel(
        calls(insert("Ana runs.")),
        calls(update("m2", "Ana runs daily."), insert("Ana swims.")),
        calls(delete("m3"), ("done", {})),
    )
    proposed = await propose(model, task(PORTO, max_steps=10))
    assert outlines(proposed.edits) == (inserted(2, "Ana runs daily."),)
    assert proposed.steps == 3
    assert model.results == [(False, "Memory m2 updated."), (False, "Memory m3 inserted.")]
    last = model.requests[-1].messages[-1].text
    assert '<memory id="m2" kind="memory" importance="0.5">{"content": "Ana runs daily."}' in last
    assert "Porto" not in last
    assert model.tool_names[-2:] == ["no_change", "done"]
    assert [tool.name for tool in model.requests[0].tools][-1] == "no_change"


@pytest.mark.parametrize(
    ("last", "max_steps"),
    [
        *((last, 5) for last in (DONE, NOTHING, says("All is well."), says(""))),
        (calls(update("m1", "Ana lives in Lisbon.")), 5),
        (calls(update("m1", "Ana lives in Lisbon.")), 2),
    ],
    ids=["done", "no_change", "text", "empty", "nothing new", "number of steps"],
)
async def test_steps_end_when_there_is_nothing_more_to_do(last: Completion, max_steps: int) -> None:
    model = ScriptedModel(calls(update("m1", "Ana lives in Lisbon.")), last)
    proposed = await propose(model, task(PORTO, max_steps=max_steps))
    assert replace(proposed, edits=outlines(proposed.edits)) == Proposal(
        (update_edit("m1", "memory", {"content": "Ana lives in Lisbon."}),), steps=2
    )
    model = ScriptedModel(calls(insert("a"), ("no_change", {})))
    assert outlines((await propose(model, task(max_steps=4))).edits) == (inserted(1, "a"),)


async def test_a_refusal_in_a_later_step_keeps_the_edits_before_it() -> None:
    model = ScriptedModel(calls(WRONG), calls(insert("a")), says("No.", "refusal"))
    proposed = await propose(model, task(max_steps=3))
    assert outlines(proposed.edits) == (inserted(1, "a"),)
    assert proposed.rejected == (Rejection("", "the model refused: No."),)
    assert model.results == [(False, "Memory m1 inserted.")]  # the repair is answered here
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
    model = ScriptedModel(calls(delete("m1"), delete("m2")))
    proposed = await propose(model, task(PORTO, NUTS, turns=[]))
    assert outlines(proposed.edits) == (delete_edit("m1", "wrong"), delete_edit("m2", "wrong"))
    assert model.purposes == ["tidy"]
    assert "message_ids" not in str(model.requests[0].tools)
    assert "<conversation>" not in str(model.requests[0].messages)


async def test_memories_keep_the_kind_that_they_have() -> None:
    remove = {"op": "remove", "path": "/old"}
    model = ScriptedModel(
        calls(
            ("update_memory", {"id": "m1", "edits": [remove]}),  # of no kind and no schema
            ("insert_profile", {"content": {"name": "Ana"}}),
        )
    )
    given = task(Memory("m1", None, {"old": 1, "new": 2}), kinds=[MEMORY, PROFILE])
    assert outlines((await propose(model, given)).edits) == (
        update_edit("m1", None, {"new": 2}),
        insert_edit("m2", "profile", {"name": "Ana"}),
    )


SKIS, TRAM, SWIMS = (insert(f"Ana {does}.") for does in ("skis", "takes the tram", "swims"))
ONE_SENTENCE = Turn("a", "user", "I ski.")
TWO_SENTENCES = (Turn("a", "user", "I ski. I take the tram, and I swim."),)


@pytest.mark.parametrize(
    ("replies", "habit"),
    [
        ([calls(SKIS), calls(TRAM), calls(SWIMS), DONE], CallHabit.ONE),
        ([calls(SKIS), calls(TRAM), calls(WRONG), calls(SWIMS), says("Done.")], CallHabit.ONE),
        ([calls(SKIS), calls(TRAM, SWIMS)], CallHabit.SEVERAL),
    ],
)
async def test_a_server_that_hands_on_one_call_is_asked_for_the_rest(
    replies: list[Completion], habit: CallHabit
) -> None:
    model = ScriptedModel(*replies)
    proposed = await propose(model, task(turns=TWO_SENTENCES, habit=CallHabit.UNKNOWN))
    assert outlines(proposed.edits) == (
        inserted(1, "Ana skis."), inserted(2, "Ana takes the tram."), inserted(3, "Ana swims.")
    )  # fmt: skip
    assert (proposed.habit, len(model.requests)) == (habit, len(replies))
    assert model.purposes[:2] == ["extract", "rest"]
    assert "If others are missing" in model.requests[1].messages[-1].text


@pytest.mark.parametrize(
    ("replies", "chosen"),
    [
        ([calls(SKIS)], {"habit": CallHabit.SEVERAL}),
        ([calls(SKIS)], {"turns": (ONE_SENTENCE, Turn("b", "bot", "A. B.", "assistant"))}),
        ([calls(SKIS), DONE], {"max_steps": 2}),
        ([NOTHING], {}),
        ([calls(SKIS, TRAM)], {}),
        ([calls(SKIS), says("That is all.")], {}),
        ([calls(SKIS), NOTHING], {"turns": (ONE_SENTENCE,), "habit": CallHabit.ONE}),
    ],
)  # fmt: skip
async def test_the_rest_is_asked_for_only_if_there_may_be_some(
    replies: list[Completion], chosen: dict[str, Any]
) -> None:
    model = ScriptedModel(*replies)
    options = {"turns": TWO_SENTENCES, "habit": CallHabit.UNKNOWN, **chosen}
    await propose(model, task(**options))
    assert len(model.requests) == len(replies)


async def test_asking_for_the_rest_ends() -> None:
    model = ScriptedModel(*(calls(insert(f"Fact {n}")) for n in range(100)))
    proposed = await propose(model, task(turns=TWO_SENTENCES, habit=CallHabit.UNKNOWN))
    assert len(proposed.edits) == len(model.requests) == 1 + MAX_FURTHER_REPLIES
    model = ScriptedModel(*[calls(update("m1", "Ana lives in Lisbon."))] * 9)
    await propose(model, task(PORTO, turns=TWO_SENTENCES, habit=CallHabit.ONE))
    assert len(model.requests) == 2
    model = ScriptedModel(*[calls(SKIS)] * 9)
    proposed = await propose(model, task(turns=TWO_SENTENCES, habit=CallHabit.UNKNOWN))
    assert (len(proposed.edits), len(model.requests), proposed.habit) == (1, 2, CallHabit.ENOUGH)


def test_a_model_with_nothing_to_add_is_not_asked_for_ever() -> None:
    capabilities = Capabilities()
    habits = CallHabits(capabilities)
    for _ in range(ENOUGH_TIMES):
        assert habits.get("m") is CallHabit.UNKNOWN
        habits.learn("m", CallHabit.ENOUGH)
    assert habits.get("m") is CallHabit.SEVERAL
    for habit in (CallHabit.ONE, *[CallHabit.ENOUGH] * ENOUGH_TIMES, CallHabit.UNKNOWN):
        habits.learn("n", habit)
        assert habits.get("n") is CallHabit.ONE
    assert [known.feature for known in capabilities.all()] == [FEATURE]
    assert CallHabits(capabilities).get("n") is CallHabit.ONE
    shared = Capabilities()
    here, there = (
        CallHabits(shared, {"p": Provider("p", base_url=f"http://{host}")}) for host in "ab"
    )
    here.learn("p:m", CallHabit.ONE)
    assert (here.get("p:m"), there.get("p:m")) == (CallHabit.ONE, CallHabit.UNKNOWN)
    habits.learn("n", CallHabit.SEVERAL)
    assert capabilities.all() == []
    habits.learn("n", CallHabit.ONE)
    assert habits.get("n") is CallHabit.SEVERAL
