import pytest

from app.prompts.optimize.types import Optimization, OptimizerConfig
from app.prompts.task import build_optimizer
from tests.prompts.scripted import BETTER, PROMPT, optimized, revise, told
from tests.support.scripted_model import ScriptedModel, says


async def test_one_call_decides_and_rewrites() -> None:
    model = ScriptedModel(revise())
    result = await optimized("prompt_memory", model)
    assert result == Optimization("improved", BETTER, "Names the currency.")
    assert [tool.name for tool in model.requests[0].tools] == ["revise"]
    assert model.purposes == ["rewrite"]


@pytest.mark.parametrize(
    "reply",
    [
        revise("", update=False),
        revise("Something else.", update=False),
        revise("", update=True),
        revise(" \n", update=True),
        revise(None, update=True),
        revise("", update="false"),
        revise(PROMPT.text, update=True),
    ],
)
async def test_without_a_new_text_the_prompt_stays(reply: object) -> None:
    result = await optimized("prompt_memory", ScriptedModel(reply))  # type: ignore[arg-type]
    assert (result.outcome, result.text) == ("not_warranted", None)
    assert result.analysis == "Names the currency."


async def test_a_decision_that_is_none_goes_back() -> None:
    model = ScriptedModel(revise(update=None), revise())
    assert (await optimized("prompt_memory", model)).text == BETTER
    assert "update_prompt must be true or false" in told(model)


async def test_text_goes_back_once_and_never_becomes_the_prompt() -> None:
    assert (await optimized("prompt_memory", ScriptedModel(says(BETTER), revise()))).text == BETTER
    result = await optimized("prompt_memory", ScriptedModel(says(BETTER), says(BETTER)))
    assert result == Optimization("rejected", None, "", f"revise was not called: {BETTER}")


async def test_without_conversations_no_model_is_asked() -> None:
    model = ScriptedModel()
    result = await build_optimizer("prompt_memory", OptimizerConfig(), model).optimize(PROMPT, [])
    assert result.outcome == "not_warranted"
    assert model.requests == []
