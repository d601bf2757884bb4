"""Faults of LangMem's optimizers (0.0.30) that ours do not have."""

from collections.abc import Callable, Sequence

import pytest

from app.prompts.optimize.types import OptimizerKind, TargetPrompt
from app.providers.llm.base import Completion
from tests.prompts.scripted import THINK, improve, optimized, recommend, revise
from tests.support.scripted_model import ScriptedModel

Rewriting = Callable[[str], Sequence[Completion]]

REWRITING: dict[OptimizerKind, Rewriting] = {
    "gradient": lambda text: (THINK, recommend(), improve(text)),
    "metaprompt": lambda text: (improve(text),),
    "prompt_memory": lambda text: (revise(text),),
}

JSON = 'Answer with {"city": "Lisbon", "days": [{"rain": null}]}.'

every_kind = pytest.mark.parametrize("kind", REWRITING)


async def text_after(kind: OptimizerKind, old: str, new: str) -> str | None:
    """Return a prompt after a model writes a new text once."""
    model = ScriptedModel(*REWRITING[kind](new))
    return (await optimized(kind, model, prompt=TargetPrompt("p", old))).text


@every_kind
@pytest.mark.parametrize("old", ["Answer.", JSON, "Answer for {city}. " + JSON])
async def test_braces_are_not_doubled(kind: OptimizerKind, old: str) -> None:
    new = old + ' For example {"city": "Faro", "days": []} or } {.'
    assert await text_after(kind, old, new) == new


@every_kind
async def test_json_in_a_prompt_is_no_variable_and_may_change(kind: OptimizerKind) -> None:
    assert await text_after(kind, JSON, "Answer in one sentence.") == "Answer in one sentence."


@every_kind
async def test_doubled_braces_of_a_format_string_stay_as_the_model_writes_them(
    kind: OptimizerKind,
) -> None:
    old, new = 'Help {name}: {{"a": 1}}', 'Help {name}: {{"a": 1, "b": {{}}}}!'
    assert await text_after(kind, old, new) == new


@every_kind
async def test_a_text_is_stored_as_the_model_wrote_it(kind: OptimizerKind) -> None:
    new = "  <TO_OPTIMIZE>Be kind.</TO_OPTIMIZE>\r\n\n"
    assert await text_after(kind, "Be.", new) == new


@every_kind
async def test_a_lost_variable_is_no_error_and_changes_nothing(kind: OptimizerKind) -> None:
    *before, rewriting = REWRITING[kind]("Help.")
    model = ScriptedModel(*before, *[rewriting] * 3)
    result = await optimized(kind, model, prompt=TargetPrompt("p", "Help {name}."))
    assert (result.outcome, result.text) == ("rejected", None)
    assert result.reason == "the new prompt lacks {name}, which a program fills in"


@every_kind
@pytest.mark.parametrize("nothing", ["", " "])
async def test_an_empty_text_never_takes_the_place_of_a_prompt(
    kind: OptimizerKind, nothing: str
) -> None:
    *before, rewriting = REWRITING[kind](nothing)
    result = await optimized(kind, ScriptedModel(*before, *[rewriting] * 3))
    assert result.text is None
    assert result.outcome == ("rejected" if kind == "gradient" else "not_warranted")


async def test_an_answer_ends_the_reflection_early() -> None:
    model = ScriptedModel(improve("Be kind."))
    await optimized("metaprompt", model, max_reflection_steps=5)
    assert len(model.requests) == 1


async def test_braces_in_an_own_request_are_no_error() -> None:
    model = ScriptedModel(improve("Be kind."))
    own = 'Answer as {"analysis": …}. {prompt} {trajectories} {what?}'
    assert (await optimized("metaprompt", model, metaprompt=own)).text == "Be kind."
    assert model.requests[0].messages[0].text.startswith('Answer as {"analysis": …}. You help')
