"""What becomes of braces and variables in LangMem's prompt optimisers, and in memoryd's."""

import pytest

from tests.langmem.decisions import JSON
from tests.langmem.optimizers import by_memoryd
from tests.langmem.ours import Memoryd
from tests.langmem.test_prompt_optimizers import shown_by_ours
from tests.langmem.verdicts import Kind, Prompt
from tests.langmem.writers import (
    answering,
    optimized_by_langmem,
    optimized_by_memoryd,
    writing,
)

pytestmark = pytest.mark.slow  # each waits for workers or models

JSON_PROMPT = 'Answer as {"city": "Rome", "where": {"river": "Tiber"}}.'


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


async def test_metaprompt_cannot_leave_a_prompt_with_variables_alone_in_langmem_and_can_in_memoryd(
    memoryd: Memoryd,
) -> None:
    with pytest.raises(IndexError):
        await optimized_by_langmem("Greet {name}.", writing("No recommendations."), "metaprompt")
    result = await optimized_by_memoryd(memoryd, "Greet {name}.", answering(None), "metaprompt")
    assert (result["outcome"], result["text"]) == ("not_warranted", "Greet {name}.")


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
