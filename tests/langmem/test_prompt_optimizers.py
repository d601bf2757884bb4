from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.langmem.decisions import JSON
from tests.langmem.optimizers import TALK, Optimizers
from tests.langmem.original import Asked
from tests.langmem.ours import Memoryd
from tests.langmem.verdicts import KINDS, Feedback, Kind, Prompt, Trajectory, Verdict
from tests.support.llm_server import Received

pytestmark = pytest.mark.slow  # each waits for workers or models

GUIDE = Prompt("guide", "You are a guide to the cities of Europe.")
SHORT = "You are a guide to the cities of Europe. Answer in one sentence."


@pytest.fixture
def optimizers(memoryd: Memoryd) -> Optimizers:
    return Optimizers(memoryd)


def shown_by_theirs(asked: Sequence[Asked]) -> str:
    return "\n".join(request.text for request in asked)


def shown_by_ours(received: Sequence[Received]) -> str:
    texts = [[r.system, *(message.text for message in r.messages)] for r in received]
    return "\n".join(text for request in texts for text in request)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_prompt_is_improved(optimizers: Optimizers, kind: Kind) -> None:
    texts = await optimizers.agree(GUIDE, verdicts={"guide": Verdict(SHORT)}, kind=kind)
    assert texts == {"guide": SHORT}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_good_prompt_stays_as_it_is(optimizers: Optimizers, kind: Kind) -> None:
    texts = await optimizers.agree(GUIDE, verdicts={"guide": Verdict(None)}, kind=kind)
    assert texts == {"guide": GUIDE.text}


@pytest.mark.parametrize("kind", KINDS)
async def test_variables_stay_in_a_prompt(optimizers: Optimizers, kind: Kind) -> None:
    prompt = Prompt("guide", "You are {name}, a guide to {city}. Today is {date}.")
    text = "Today is {date}. You are {name}, a guide to {city} and to nothing else but {city}."
    texts = await optimizers.agree(prompt, verdicts={"guide": Verdict(text)}, kind=kind)
    assert texts == {"guide": text}


@pytest.mark.parametrize("kind", ["gradient", "metaprompt"])
async def test_nothing_is_learned_from_no_conversations(optimizers: Optimizers, kind: Kind) -> None:
    verdicts = {"guide": Verdict(None)}
    await optimizers.agree(GUIDE, verdicts=verdicts, trajectories=[], kind=kind)
    assert not optimizers.asked
    assert not optimizers.received


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("feedback", "shown"),
    [
        (None, []),
        ("Far too long.", ["Far too long."]),
        ({"score": 0.25, "comment": "Far too long."}, ["0.25", "Far too long."]),
        ({"edited_answer": "On the Tagus."}, ["On the Tagus."]),
        ({"tone": "condescending", "helpful": False}, ["tone", "condescending", "helpful"]),
    ],
    ids=["none", "a text", "a score", "a better answer", "anything"],
)
async def test_a_model_reads_what_was_said_and_what_was_thought_of_it(
    optimizers: Optimizers, kind: Kind, feedback: Feedback, shown: list[str]
) -> None:
    prompt = Prompt("guide", GUIDE.text, update_instructions="Change as few words as you can.")
    await optimizers.agree(
        prompt,
        verdicts={"guide": Verdict(SHORT)},
        trajectories=[(TALK[0], feedback), ([{"role": "user", "content": "And Porto?"}], None)],
        kind=kind,
    )
    said = [message["content"] for message in TALK[0]]
    for text in (shown_by_theirs(optimizers.asked), shown_by_ours(optimizers.received)):
        for part in (*said, "And Porto?", *shown, "Change as few words as you can.", GUIDE.text):
            assert part in text


@pytest.mark.parametrize(
    ("config", "thoughts", "number"),
    [
        (None, 0, 3),
        (None, 3, 5),
        (None, 9, 6),
        ({"min_reflection_steps": 3}, 0, 5),
        ({"min_reflection_steps": 0}, 0, 2),
        ({"max_reflection_steps": 2}, 9, 3),
        ({"max_reflection_steps": 1, "min_reflection_steps": 0}, 9, 2),
        ({"max_reflection_steps": 2, "min_reflection_steps": 2}, 0, 3),
    ],
)
async def test_gradient_takes_as_many_steps_as_it_may(
    optimizers: Optimizers, config: JSON | None, thoughts: int, number: int
) -> None:
    await optimizers.agree(GUIDE, verdicts={"guide": Verdict(SHORT, thoughts)}, config=config)
    assert len(optimizers.asked) == len(optimizers.received) == number


async def test_gradient_does_not_rewrite_what_needs_no_change(optimizers: Optimizers) -> None:
    await optimizers.agree(GUIDE, verdicts={"guide": Verdict(None)})
    assert len(optimizers.asked) == len(optimizers.received) == 2


@pytest.mark.parametrize(
    ("config", "thoughts", "number"),
    [
        ({"max_reflection_steps": 1, "min_reflection_steps": 0}, 9, 1),
        ({"max_reflection_steps": 3}, 9, 3),
        ({"max_reflection_steps": 3, "min_reflection_steps": 3}, 0, 3),
    ],
)
async def test_metaprompt_takes_as_many_steps_as_it_may(
    optimizers: Optimizers, config: JSON, thoughts: int, number: int
) -> None:
    verdicts = {"guide": Verdict(SHORT, thoughts)}
    await optimizers.agree(GUIDE, verdicts=verdicts, kind="metaprompt", config=config)
    assert len(optimizers.asked) == len(optimizers.received) == number


async def test_prompt_memory_asks_once(optimizers: Optimizers) -> None:
    await optimizers.agree(GUIDE, verdicts={"guide": Verdict(SHORT, 9)}, kind="prompt_memory")
    assert len(optimizers.asked) == len(optimizers.received) == 1


OWN = "Here is a prompt: {prompt} It was used here: {trajectories} Mind this: {update_instructions}"
APPLY = "Rewrite {current_prompt} because {hypotheses} as follows: {recommendations}"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gradient", {"gradient_prompt": OWN}),
        ("gradient", {"metaprompt": APPLY}),
        ("gradient", {"gradient_prompt": OWN, "metaprompt": APPLY}),
        ("metaprompt", {"metaprompt": OWN}),
    ],
)
async def test_requests_may_be_ones_own(optimizers: Optimizers, kind: Kind, config: JSON) -> None:
    prompt = Prompt("guide", GUIDE.text, update_instructions="Keep it friendly.")
    verdicts = {"guide": Verdict(SHORT)}
    await optimizers.agree(prompt, verdicts=verdicts, kind=kind, config=config)
    for text in (shown_by_theirs(optimizers.asked), shown_by_ours(optimizers.received)):
        if OWN in config.values():
            assert f"Here is a prompt: {GUIDE.text} It was used here:" in text
            assert "Mind this: Keep it friendly." in text
        if APPLY in config.values():
            assert f"Rewrite {GUIDE.text} because" in text


Draw = Any


class Writing:
    """Texts of prompts, all different, of which none is a part of another."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._numbers: Iterator[int] = count(1)

    def prompt(self, name: str, **further: str | None) -> Prompt:
        variables = self._draw(st.lists(st.sampled_from(["name", "city", "date"]), unique=True))
        instructions = self._draw(st.sampled_from([None, "Change as few words as you can."]))
        return Prompt(name, self._text(variables), instructions, **further)

    def verdict(self, prompt: Prompt) -> Verdict:
        thoughts = self._draw(st.integers(0, 6))
        if self._draw(st.booleans()):
            return Verdict(None, thoughts)
        variables = [name for name in ("name", "city", "date") if f"{{{name}}}" in prompt.text]
        again = self._draw(st.lists(st.sampled_from(variables))) if variables else []
        return Verdict(self._text([*variables, *again]), thoughts)

    def _text(self, variables: Sequence[str]) -> str:
        words = [f"word{next(self._numbers)}." for _ in range(self._draw(st.integers(1, 4)))]
        parts = self._draw(st.permutations([*words, *(f"{{{name}}}" for name in variables)]))
        separator: str = self._draw(st.sampled_from([" ", "\n", "\n\n- "]))
        return separator.join(parts)


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


@EXAMPLES
@given(st.data(), st.sampled_from(KINDS), trajectories(), configs())
async def test_both_end_with_the_same_prompt(
    optimizers: Optimizers,
    data: st.DataObject,
    kind: Kind,
    trajectories: list[Trajectory],
    config: JSON,
) -> None:
    writing = Writing(data.draw)
    prompt = writing.prompt("guide")
    await optimizers.agree(
        prompt,
        verdicts={"guide": writing.verdict(prompt)},
        trajectories=trajectories,
        kind=kind,
        config=None if kind == "prompt_memory" else config,
    )
    if kind == "metaprompt":
        assert len(optimizers.received) <= len(optimizers.asked)
    else:
        assert len(optimizers.received) == len(optimizers.asked)
