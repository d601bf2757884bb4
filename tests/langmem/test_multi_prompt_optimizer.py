from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.langmem.optimizers import TALK, Optimizers
from tests.langmem.ours import Memoryd
from tests.langmem.test_prompt_optimizers import Writing, shown_by_ours, shown_by_theirs
from tests.langmem.verdicts import KINDS, Kind, Prompt, Verdict

pytestmark = pytest.mark.slow  # each waits for workers or models

SEARCHER = Prompt("searcher", "Find what has been published about a question.")
WRITER = Prompt("writer", "Write a report about {topic} from what was found.")
EDITOR = Prompt("editor", "Shorten a report to one page.")
TEAM = (SEARCHER, WRITER, EDITOR)
VERDICTS: Mapping[str, Verdict] = {
    "searcher": Verdict("Find what has been published about a question since 2020."),
    "writer": Verdict("Write a report about {topic} from what was found. Name the sources.", 2),
    "editor": Verdict(None),
}


@pytest.fixture
def optimizers(memoryd: Memoryd) -> Optimizers:
    return Optimizers(memoryd)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_prompts_that_are_chosen_are_improved(optimizers: Optimizers, kind: Kind) -> None:
    texts = await optimizers.agree(*TEAM, verdicts=VERDICTS, chosen=["writer"], kind=kind)
    assert list(texts) == ["searcher", "writer", "editor"]
    assert texts == {
        "searcher": SEARCHER.text,
        "writer": VERDICTS["writer"].text,
        "editor": EDITOR.text,
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_all_prompts_may_be_chosen(optimizers: Optimizers, kind: Kind) -> None:
    names = ["editor", "searcher", "writer"]
    texts = await optimizers.agree(*TEAM, verdicts=VERDICTS, chosen=names, kind=kind)
    assert texts["editor"] == EDITOR.text
    assert texts["searcher"] != SEARCHER.text
    assert texts["writer"] != WRITER.text


async def test_none_may_be_chosen(optimizers: Optimizers) -> None:
    texts = await optimizers.agree(*TEAM, verdicts=VERDICTS, chosen=[])
    assert texts == {prompt.name: prompt.text for prompt in TEAM}
    assert len(optimizers.asked) == len(optimizers.received) == 1


async def test_a_model_chooses_by_the_conversations_and_the_prompts(optimizers: Optimizers) -> None:
    await optimizers.agree(*TEAM, verdicts=VERDICTS, chosen=["writer"])
    theirs, ours = shown_by_theirs(optimizers.asked[:1]), shown_by_ours(optimizers.received[:1])
    for text in (theirs, ours):
        for prompt in TEAM:
            assert prompt.name in text
            assert prompt.text in text
        for message in TALK[0]:
            assert message["content"] in text


async def test_a_single_prompt_need_not_be_chosen(optimizers: Optimizers) -> None:
    texts = await optimizers.agree(SEARCHER, verdicts=VERDICTS)
    assert texts == {"searcher": VERDICTS["searcher"].text}
    assert len(optimizers.asked) == len(optimizers.received) == 3


@pytest.mark.parametrize("chosen", [[], ["searcher"]], ids=["not now", "now"])
async def test_a_single_prompt_is_chosen_where_it_says_when(
    optimizers: Optimizers, chosen: list[str]
) -> None:
    prompt = Prompt("searcher", SEARCHER.text, when_to_update="When sources are missing.")
    texts = await optimizers.agree(prompt, verdicts=VERDICTS, chosen=chosen)
    assert (texts["searcher"] == SEARCHER.text) is not bool(chosen)
    assert len(optimizers.asked) == len(optimizers.received) == (4 if chosen else 1)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data(), st.sampled_from(KINDS))
async def test_both_end_with_the_same_prompts(
    optimizers: Optimizers, data: Any, kind: Kind
) -> None:
    writing = Writing(data.draw)
    names = [f"prompt-{number}" for number in range(data.draw(st.integers(2, 4)))]
    when = data.draw(st.sampled_from([None, "When it is too long."]))
    prompts = [writing.prompt(name, when_to_update=when) for name in names]
    await optimizers.agree(
        *prompts,
        verdicts={prompt.name: writing.verdict(prompt) for prompt in prompts},
        chosen=data.draw(st.lists(st.sampled_from(names), unique=True)),
        kind=kind,
    )
