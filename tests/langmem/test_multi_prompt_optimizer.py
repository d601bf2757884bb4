from collections.abc import Mapping

import pytest

from tests.langmem.optimizers import Optimizers
from tests.langmem.ours import Memoryd
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
