import pytest
from typing_extensions import override

from app.conversations.dialogue import (
    AnswerTool,
    BadAnswerError,
    Dialogue,
    NoAnswerError,
    RefusalError,
    Repair,
    StructuredDialogue,
)
from app.json_values import JsonObject
from app.providers.errors import BadRequestError
from app.providers.llm import Completion, Request, Tool
from tests.support.scripted_model import ScriptedModel, calls, says

TOOL = Tool("count", "Counts.", {"type": "object"})


class ShortRepair(Repair):
    @override
    def turn(self, tool: str, _reply: Completion, error: BadAnswerError) -> str:
        return f"{error}; call {tool}"


def read(arguments: JsonObject) -> int:
    number = arguments.get("number")
    if not isinstance(number, int):
        raise BadAnswerError("number must be an integer")
    return number


def dialogue_with(model: ScriptedModel) -> StructuredDialogue[int]:
    dialogue = Dialogue(model, "Count.")
    dialogue.say("How many?")
    return StructuredDialogue(dialogue, AnswerTool(TOOL, read, ShortRepair()), "count")


async def test_an_answer_is_read() -> None:
    assert await dialogue_with(ScriptedModel(calls(("count", {"number": 3})))).answer() == 3


async def test_a_bad_answer_is_sent_back_once() -> None:
    model = ScriptedModel(calls(("count", {"number": "x"})), calls(("count", {"number": 3})))
    assert await dialogue_with(model).answer() == 3
    assert model.purposes == ["count", "repair"]
    assert model.results == [(True, "Not done: number must be an integer.")]
    assert model.requests[-1].messages[-1].text == "number must be an integer; call count"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (says("Three."), "the tool `count` was not called"),
        (calls(("count", "{")), "the arguments are not a JSON object; they may have been cut off"),
        (calls(("count", {})), "number must be an integer"),
    ],
)
async def test_a_second_bad_answer_is_final(reply: Completion, reason: str) -> None:
    with pytest.raises(NoAnswerError, match=reason):
        await dialogue_with(ScriptedModel(reply, reply)).answer()


async def test_a_refused_repair_is_sent_again_in_the_plainest_form() -> None:
    model = ScriptedModel(
        calls(("count", {"number": "x"}), text="Hm."), calls(("count", {"number": 3}))
    )

    async def ask(request: Request, purpose: str) -> Completion:
        if any(message.calls or message.results for message in request.messages):
            raise BadRequestError("roles must alternate")
        return await model(request, purpose)

    dialogue = Dialogue(ask, "Count.")
    dialogue.say("How many?")
    structured = StructuredDialogue(dialogue, AnswerTool(TOOL, read, ShortRepair()), "count")
    assert await structured.answer() == 3
    assert [message.text for message in model.requests[-1].messages] == [
        "How many?",
        'Hm.\n\n{"name": "count", "arguments": {"number": "x"}}',
        "Result of call 1 (count): Not done: number must be an integer.\n\n"
        "number must be an integer; call count",
    ]


async def test_an_answer_that_cannot_be_repaired_is_none() -> None:
    first = calls(("count", {"number": "x"}))

    async def ask(request: Request, _: str) -> Completion:
        if len(request.messages) > 1:
            raise BadRequestError("too long")
        return first

    dialogue = Dialogue(ask, "Count.")
    dialogue.say("How many?")
    structured = StructuredDialogue(dialogue, AnswerTool(TOOL, read, ShortRepair()), "count")
    with pytest.raises(
        NoAnswerError, match=r"must be an integer; the model could not .*: too long"
    ) as caught:
        await structured.answer()
    assert caught.value.replies == (first,)


async def test_a_refusal_is_final() -> None:
    with pytest.raises(RefusalError, match="I will not count"):
        await dialogue_with(ScriptedModel(says("I will not count.", "refusal"))).answer()
