from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.langmem.decisions import JSON
from tests.langmem.optimizers import Optimizers
from tests.langmem.ours import Memoryd
from tests.langmem.verdicts import KINDS, Kind, Prompt, Trajectory, Verdict

pytestmark = pytest.mark.slow  # each waits for workers or models

GUIDE = Prompt("guide", "You are a guide to the cities of Europe.")
SHORT = "You are a guide to the cities of Europe. Answer in one sentence."


@pytest.fixture
def optimizers(memoryd: Memoryd) -> Optimizers:
    return Optimizers(memoryd)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_prompt_is_improved(optimizers: Optimizers, kind: Kind) -> None:
    texts = await optimizers.agree(GUIDE, verdicts={"guide": Verdict(SHORT)}, kind=kind)
    assert texts == {"guide": SHORT}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_good_prompt_stays_as_it_is(optimizers: Optimizers, kind: Kind) -> None:
    texts = await optimizers.agree(GUIDE, verdicts={"guide": Verdict(None)}, kind=kind)
    assert texts == {"guide": GUIDE.text}


Draw = Any


def trajectories() -> st.SearchStrategy[list[Trajectory]]:
    said = st.sampled_from(["Where is Porto?", "On the Douro.", "{braces} & <tags>", "Olá! 👋"])
    feedback = st.sampled_from([None, "Too long.", {"score": 0.5}, {"comment": "No.", "x": 1}])
    talk = st.lists(said, min_size=1, max_size=4).map(
        lambda texts: [
            {"role": ("user", "assistant")[place % 2], "content": text}
            for place, text in enumerate(texts)
        ]
    )
    return st.lists(st.tuples(talk, feedback), min_size=1, max_size=3)


def configs() -> st.SearchStrategy[JSON]:
    return st.integers(1, 6).flatmap(
        lambda most: st.fixed_dictionaries(
            {"max_reflection_steps": st.just(most), "min_reflection_steps": st.integers(0, most)}
        )
    )


EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
