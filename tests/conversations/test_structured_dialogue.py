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
from app.providers.llm import Completion, Tool
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


async def test_a_refusal_is_final() -> None:
    with pytest.raises(RefusalError, match="I will not count"):
        await dialogue_with(ScriptedModel(says("I will not count.", "refusal"))).answer()
