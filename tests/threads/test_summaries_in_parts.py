"""Summaries, records, and queries of conversations that are longer than the model reads."""

import re
from collections.abc import Awaitable, Callable, Sequence

import pytest

from app.conversations.dialogue import Ask
from app.conversations.messages import Turn
from app.extraction.retrieval import ask_for_queries
from app.providers.errors import RequestTooLongError
from app.providers.llm import Completion, Request
from app.threads.summary_task import THREAD_SCHEMA, write_record, write_summary
from tests.support.scripted_model import calls, says

TURNS = [Turn(str(n), "user", f"fact {n:02}: " + "and so on " * 60) for n in range(20)]


class SmallModel:
    """An `Ask` that reads few characters, and repeats the facts that it reads."""

    def __init__(self, characters: int) -> None:
        self._characters = characters
        self.refusals = 0
        self.read: list[Request] = []

    async def __call__(self, request: Request, purpose: str) -> Completion:
        assert request.divisible
        if request.characters > self._characters:
            self.refusals += 1
            raise RequestTooLongError("too long")
        self.read.append(request)
        facts = " ".join(dict.fromkeys(re.findall(r"fact \d\d", request.messages[0].text)))
        if purpose == "search":
            return calls(("search_memories", {"query": facts}))
        if purpose == "record":
            return calls(("record", {"title": "Facts", "summary": facts}))
        return says(facts)


async def summarize(ask: Ask, turns: Sequence[Turn]) -> str:
    return await write_summary(ask, turns, None, None, 256)


async def record(ask: Ask, turns: Sequence[Turn]) -> str:
    return str((await write_record(ask, turns, THREAD_SCHEMA, None))["summary"])


async def query(ask: Ask, turns: Sequence[Turn]) -> str:
    return (await ask_for_queries(ask, turns, context_turns=3))[0]


@pytest.mark.parametrize(
    ("write", "first"),
    [(summarize, 0), (record, 0), (query, 16)],
    ids=["summary", "record", "query"],
)
async def test_conversations_that_are_too_long_are_sent_in_parts_or_in_part(
    write: Callable[[Ask, Sequence[Turn]], Awaitable[str]], first: int
) -> None:
    model = SmallModel(4_000)
    assert await write(model, TURNS) == " ".join(f"fact {n:02}" for n in range(first, 20))
    assert model.refusals < 8
    assert len(model.read) < 20


@pytest.mark.parametrize("write", [summarize, record, query])
async def test_a_model_that_reads_next_to_nothing_is_not_asked_for_long(
    write: Callable[[Ask, Sequence[Turn]], Awaitable[str]],
) -> None:
    model = SmallModel(50)
    with pytest.raises(RequestTooLongError):
        await write(model, TURNS)
    assert model.refusals < 30
