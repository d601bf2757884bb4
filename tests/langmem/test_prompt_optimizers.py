import pytest

from tests.langmem.optimizer_parity import KINDS, Kind, Verdict, agree
from tests.langmem.ours import Memoryd

pytestmark = pytest.mark.slow  # each waits for workers or models

GUIDE = "You are a guide to the cities of Europe."
SEARCHER = "Find what has been published about a question."
WRITER = "Write a report about {topic} from what was found."
EDITOR = "Shorten a report to one page."


@pytest.mark.parametrize("kind", KINDS)
async def test_a_prompt_is_improved_or_stays(memoryd: Memoryd, kind: Kind) -> None:
    short = f"{GUIDE} Answer in one sentence."
    for text in (short, None):
        texts = await agree(memoryd, kind, {"guide": GUIDE}, {"guide": Verdict(text)})
        assert texts == {"guide": text or GUIDE}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_chosen_prompts_are_improved(memoryd: Memoryd, kind: Kind) -> None:
    verdicts = {
        "searcher": Verdict(f"{SEARCHER} Only since 2020."),
        "writer": Verdict(f"{WRITER} Name the sources.", 2),
        "editor": Verdict(None),
    }
    prompts = {"searcher": SEARCHER, "writer": WRITER, "editor": EDITOR}
    texts = await agree(memoryd, kind, prompts, verdicts, chosen=["writer"])
    assert texts == {**prompts, "writer": verdicts["writer"].text}
