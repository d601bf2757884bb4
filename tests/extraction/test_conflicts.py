import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, Access
from app.db.database import Connection
from app.extraction.plan import ExtractPlan
from app.extraction.task import Extractor
from app.jobs.kind import JobConflictError, JobLostError, JobRun
from app.jobs.record import State
from app.namespaces import to_root
from app.providers.llm import Completion, Request
from tests.support.extraction import CONVERSATION, Memories, counts, memory_value
from tests.support.load import at_once
from tests.support.scripted_model import NOTHING, calls, delete, insert, update

pytestmark = pytest.mark.slow  # each waits for workers or models

LISBON = "Ana lives in Lisbon."
CALLERS = 8


async def test_a_memory_that_the_model_did_not_see_is_not_repeated(memories: Memories) -> None:
    acme = Access("acme", to_root(["acme"]), ALL_GRANTED)
    await memories.put("secret", "Ana likes tea.", access=acme)  # of another root
    values: list[dict[str, Any]] = [
        *({"content": LISBON}, {"text": LISBON}, {"content": {"content": LISBON}}),
        memory_value(LISBON),
    ]
    for number in range(60):
        await memories.put(f"k{number}", f"Ana lives in Lisbon with cat number {number}.")
    messages = [["assistant", f"I remember: {LISBON}"], ["user", "Right."]]
    for number, value in enumerate(values):
        await memories.put("theirs", value, importance=0.9)
        calls_of_model = calls(insert("ana lives in Lisbon"), insert("Ana likes tea."))
        memories.model.script.append(calls_of_model)
        result = await memories.extract(messages, manager_config={"query_limit": 0})
        expected = counts(unchanged=2) if number else counts(inserted=1, unchanged=1)
        assert result["counts"] == expected
        assert await memories.value("theirs") == value
    assert "none of them is shown" in memories.model.prompt
    assert len(await memories.stored()) == 63


async def test_one_fact_extracted_by_many_jobs_at_once_is_one_memory(memories: Memories) -> None:
    ready = asyncio.Barrier(CALLERS)

    async def respond(_: Request) -> Completion:
        await ready.wait()  # so that none of them could see what another wrote
        return calls(insert(LISBON), insert("Ana likes tea."))

    memories.model.respond = respond
    jobs = [await memories.begin() for _ in range(CALLERS)]

    async def work(number: int) -> None:
        await memories.run(jobs[number])

    async def put_others() -> None:
        for number in range(10):
            await memories.put("note", f"Note number {number}.")
            await memories.put(f"note{number}", f"Another note, {number}.")

    await asyncio.gather(at_once(CALLERS, work), put_others())
    said = Counter(await memories.texts())
    assert said[LISBON] == said["Ana likes tea."] == said["Note number 9."] == 1
    assert sum(said.values()) == 13
    results = [await memories.result(job.id) for job in jobs]
    assert sum(result["counts"]["inserted"] for result in results) == 2
    assert {await memories.state(job.id) for job in jobs} == {State.SUCCEEDED}


async def test_many_jobs_that_write_one_profile_lose_nothing(memories: Memories) -> None:
    facts = {"name": "facts", "schema": {"type": "object"}, "singleton": True}
    names = [f"f{number}" for number in range(5)]

    async def respond(request: Request) -> Completion:
        shown = request.messages[0].text
        name = shown.partition("field ")[2].partition(".")[0]
        await asyncio.sleep(0.01)
        if "<memory " in shown:
            edit = {"op": "add", "path": f"/{name}", "value": "x"}
            return calls(("update_memory", {"id": "m1", "edits": [edit]}))
        return calls(("insert_facts", {"content": {name: "x"}, "importance": 0.5}))

    memories.model.respond = respond
    jobs = [
        await memories.begin([["user", f"field {name}."]], manager_config={"kinds": [facts]})
        for name in names
    ]

    async def work(number: int) -> None:
        for _ in range(10):
            try:
                return await memories.run(jobs[number])
            except JobConflictError:
                await asyncio.sleep(0.05)  # as the queue would, later
        raise AssertionError

    await at_once(len(names), work)
    (row,) = await memories.stored()
    assert (row["key"], row["version"]) == ("facts", len(names))
    assert json.loads(row["value"])["content"] == dict.fromkeys(names, "x")


async def test_a_memory_changed_during_the_job_is_read_again(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.")

    async def respond(_: Request) -> Completion:
        if len(memories.model.requests) == 1:
            await memories.put("home", "Ana lives in Faro.")
            return calls(update("m1", "Ana lives in Porto or Lisbon."))
        return calls(update("m1", LISBON))

    memories.model.respond = respond
    result = await memories.extract()
    assert "Faro" in memories.model.prompt
    assert (result["rounds"], result["counts"]) == (2, counts(updated=1))
    assert [json.loads(row["value"]) for row in await memories.history("home")] == [
        memory_value(text) for text in ("Ana lives in Porto.", "Ana lives in Faro.", LISBON)
    ]


@pytest.mark.parametrize("change", [update("m1", "x"), delete("m1")])
async def test_a_memory_deleted_during_the_job_stays_deleted(
    memories: Memories, change: tuple[str, dict[str, Any]]
) -> None:
    await memories.put("home", "Ana lives in Porto.")

    async def respond(_: Request) -> Completion:
        if len(memories.model.requests) > 1:
            return NOTHING
        await memories.delete("home")
        return calls(change)

    memories.model.respond = respond
    result = await memories.extract(manager_config={"enable_deletes": True})
    assert (result["rounds"], result["counts"]) == (2, counts())
    assert await memories.stored() == []


async def test_after_three_conflicts_the_job_is_postponed(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.")

    async def respond(_: Request) -> Completion:
        await memories.patch("home", importance=len(memories.model.requests) / 10)
        return calls(update("m1", LISBON), insert("Ana likes tea."))

    memories.model.respond = respond
    job = await memories.begin()
    with pytest.raises(JobConflictError, match="3 times in a row"):
        await memories.run(job)
    assert len(memories.model.requests) == 3
    assert await memories.texts() == ["Ana lives in Porto."]
    assert await memories.changes(job.id) == []
    assert await memories.state(job.id) == State.RUNNING


async def test_a_job_that_another_worker_has_claimed_writes_nothing(memories: Memories) -> None:
    job = await memories.begin()

    async def respond(_: Request) -> Completion:
        await memories.claim(job.id)
        return calls(insert(LISBON))

    memories.model.respond = respond
    with pytest.raises(JobLostError):
        await memories.run(job)
    assert await memories.stored() == []
    assert await memories.changes(job.id) == []


async def fail(_: Connection, _read: int) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("review", [False, True])
async def test_callers_can_join_the_transaction_of_the_result(
    memories: Memories, review: bool
) -> None:
    seen: list[tuple[State, int]] = []

    async def also(connection: Connection, read: int) -> None:
        seen.append((await connection.fetchval("SELECT state FROM jobs"), read))

    async def respond(_: Request) -> Completion:
        return calls(insert(LISBON))

    memories.model.respond = respond
    job = await memories.begin(
        CONVERSATION, manager_config={"apply": "review" if review else "auto"}
    )
    run = JobRun(job, memories.resources.database)
    plan = ExtractPlan.model_validate(job.request)
    extractor = Extractor.build(memories.resources)
    with pytest.raises(ZeroDivisionError):
        await extractor.extract(run, plan, conclude=fail)
    assert await memories.stored() == []
    assert await memories.state(job.id) == State.RUNNING
    await extractor.extract(run, plan, conclude=also)
    assert seen == [(State.AWAITING_REVIEW if review else State.SUCCEEDED, 1)]
