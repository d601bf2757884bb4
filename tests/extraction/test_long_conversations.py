"""A conversation that is longer than its model reads is extracted from in parts."""

import re

import pytest

from app.providers.errors import RequestTooLongError, UnavailableError
from app.providers.llm import Completion, Request
from tests.support.extraction import Memories, Respond
from tests.support.scripted_model import calls, insert

pytestmark = pytest.mark.slow  # each runs a job


def reading(characters: int) -> Respond:
    """Return a model that reads this many characters, and remembers each fact that it reads."""

    async def respond(request: Request) -> Completion:
        text = request.messages[0].text
        if len(text) > characters:
            raise RequestTooLongError("This model's maximum context length is 4096 tokens.")
        facts = dict.fromkeys(re.findall(r"Now comes (fact \d+)\.", text))
        return calls(*map(insert, facts)) if facts else calls(("no_change", {"reason": "nothing"}))

    return respond


async def test_all_of_a_long_conversation_is_read(memories: Memories) -> None:
    memories.model.respond = reading(6_000)
    messages = [["user", f"Now comes fact {n}. " + "and so on " * 100] for n in range(12)]
    result = await memories.extract(messages)
    assert result["counts"]["inserted"] == 12
    assert await memories.texts() == sorted(f"fact {n}" for n in range(12))
    read = [request for request in memories.model.requests if len(request.messages[0].text) < 6_000]
    assert len(read) < 6, "as few parts as fit"


async def test_a_message_that_is_too_long_alone_is_cut(memories: Memories) -> None:
    memories.model.respond = reading(9_000)
    text = "Now comes fact 1. " + "and so on " * 5_000 + " Now comes fact 2."
    assert (await memories.extract([["user", text]]))["counts"]["inserted"] == 2
    assert "characters left out" in memories.model.prompt


async def test_a_model_that_reads_too_little_fails_the_job(memories: Memories) -> None:
    memories.model.respond = reading(10)
    job = await memories.begin([["user", f"Now comes fact {n}. " * 400] for n in range(5)])
    with pytest.raises(RequestTooLongError):
        await memories.run(job)
    assert len(memories.model.requests) <= 10
    assert await memories.texts() == []


async def test_another_attempt_pays_only_for_the_parts_that_are_missing(
    memories: Memories,
) -> None:
    read = reading(6_000)
    failed: list[str] = []
    paid: list[str] = []

    async def respond(request: Request) -> Completion:
        text = request.messages[0].text
        if "Now comes fact 8." in text and len(text) < 6_000 and not failed:
            failed.append(text)
            raise UnavailableError("away")
        reply = await read(request)
        paid.append(text)
        return reply

    memories.model.respond = respond
    messages = [["user", f"Now comes fact {n}. " + "and so on " * 100] for n in range(12)]
    job = await memories.begin(messages)
    with pytest.raises(UnavailableError):
        await memories.run(job)
    await memories.run(await memories.claim(job.id))
    assert await memories.texts() == sorted(f"fact {n}" for n in range(12))
    assert len(failed) == 1
    assert len(paid) == len(set(paid))
