import json
from datetime import timedelta
from typing import Any

import pytest

from app.auth.access import ANONYMOUS, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.changes.undo import CHANGED, ENDED, NO_HISTORY, THERE_AGAIN
from app.jobs.record import State
from app.jobs.service import JobStateError
from app.namespaces import ALL_ROOTS
from tests.support.extraction import Memories, memory_value
from tests.support.load import at_once
from tests.support.scripted_model import NOTHING, calls, delete, insert, update

LISBON = "Ana lives in Lisbon."


async def change(memories: Memories) -> str:
    """Let a job change a memory, delete one and add one; return its id."""
    await memories.put(
        "home",
        "Ana lives in Porto.",
        importance=0.3,
        pinned=True,
        valid_from="2020-01-01T00:00:00Z",
        valid_to="2030-01-01T00:00:00Z",
        source={"thread_id": "old", "mine": True},
    )
    await memories.put("pet", "Ana has a dog.", ttl_seconds=9_000, index=False, importance=0.2)
    memories.model.script.append(
        calls(
            update("m1", LISBON, importance=0.9, valid_from="2026-05-03"),
            delete("m2"),
            insert("Ana is a cook."),
        )
    )
    job_id, _ = await memories.extract_job(manager_config={"enable_deletes": True})
    return job_id


async def undo(memories: Memories, job_id: str) -> Any:
    job = await memories.undos.undo(ANONYMOUS, job_id)
    assert job.state == State.SUCCEEDED
    return job.result_object["undo"]


async def outcomes(memories: Memories, job_id: str) -> list[tuple[str, str | None]]:
    return [(change.state, change.state_reason) for change in await memories.changes(job_id)]


DETAILS = ("value", "importance", "pinned", "valid_from", "valid_to", "source", "index_paths")


async def test_undo_restores_values_and_all_details(memories: Memories) -> None:
    job_id = await change(memories)
    result = await undo(memories, job_id)
    assert result["counts"] == {"undone": 3, "skipped": 0}
    assert result["by"] == "anonymous"
    assert await memories.texts() == ["Ana has a dog.", "Ana lives in Porto."]
    home, pet = await memories.get("home"), await memories.get("pet")
    history = await memories.history("home")
    assert [home[name] for name in DETAILS] == [history[0][name] for name in DETAILS]
    assert (home["version"], home["pinned"], json.loads(home["source"])["mine"]) == (3, True, True)
    assert pet["ttl"] == timedelta(seconds=9_000)
    assert (pet["importance"], json.loads(pet["index_paths"]), pet["version"]) == (0.2, [], 3)
    assert await outcomes(memories, job_id) == [("undone", None)] * 3
    assert [version["action"] for version in history] == ["put", "put", "restore"]
    assert history[-1]["actor"] == f"anonymous {job_id}"
    memories.model.script.append(NOTHING)
    await memories.extract([["user", "Porto"]])
    assert "Ana lives in Porto." in memories.model.prompt  # it is found again


async def test_jobs_are_undone_from_the_last_one_to_the_first(memories: Memories) -> None:
    edits = insert("Ana lives in Porto."), update("m1", LISBON), delete("m1")
    memories.model.script += [calls(edit) for edit in edits]
    manager = {"enable_deletes": True}
    jobs = [(await memories.extract_job(manager_config=manager))[0] for _ in edits]
    assert (await undo(memories, jobs[1]))["counts"] == {"undone": 0, "skipped": 1}
    texts: list[list[str]] = [[LISBON], ["Ana lives in Porto."], []]
    for job_id, left in zip(reversed(jobs), texts, strict=True):
        assert (await undo(memories, job_id))["counts"] == {"undone": 1, "skipped": 0}
        assert await memories.texts() == left


async def test_a_write_between_two_undone_jobs_is_kept(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.")
    memories.model.script += [calls(update("m1", LISBON)), calls(update("m1", "Faro"))]
    first, _ = await memories.extract_job()
    await memories.put("home", "Ana lives in Braga.")
    second, _ = await memories.extract_job()
    assert (await undo(memories, second))["counts"] == {"undone": 1, "skipped": 0}
    assert (await undo(memories, first))["counts"] == {"undone": 0, "skipped": 1}
    assert await memories.texts() == ["Ana lives in Braga."]


async def test_later_changes_are_kept(memories: Memories) -> None:
    job_id = await change(memories)
    await memories.patch("home", importance=1.0)
    await memories.put("pet", "Ana has a cat.")
    (cook,) = [row["key"] for row in await memories.stored() if "cook" in row["value"]]
    await memories.put(cook, "Ana is a cook.")  # the same value is a change, too
    assert (await undo(memories, job_id))["counts"] == {"undone": 0, "skipped": 3}
    assert (await outcomes(memories, job_id))[2] == ("applied", CHANGED)
    await memories.delete(cook)
    assert (await undo(memories, job_id))["counts"] == {"undone": 0, "skipped": 3}
    reasons = [reason for _, reason in await outcomes(memories, job_id)]
    assert reasons == [CHANGED, THERE_AGAIN, ENDED]
    assert await memories.texts() == ["Ana has a cat.", LISBON]
    assert (await memories.get("home"))["importance"] == 1.0
    await memories.delete("pet")
    await memories.rows("DELETE FROM item_versions WHERE key = 'pet'")
    assert (await undo(memories, job_id))["counts"] == {"undone": 0, "skipped": 3}
    assert (await outcomes(memories, job_id))[1] == ("applied", NO_HISTORY)


async def test_undoing_again_undoes_only_what_was_skipped(memories: Memories) -> None:
    job_id = await change(memories)
    await memories.put("pet", "Ana has a cat.")
    for _ in range(2):
        assert (await undo(memories, job_id))["counts"] == {"undone": 2, "skipped": 1}
    assert len(await memories.history("home")) == 3
    await memories.delete("pet")
    last = await undo(memories, job_id)
    assert last["counts"] == {"undone": 3, "skipped": 0}
    assert await undo(memories, job_id) == last
    assert await memories.value("pet") == memory_value("Ana has a dog.")


async def test_only_jobs_that_succeeded_can_be_undone(memories: Memories) -> None:
    memories.model.script.append(calls(insert(LISBON)))
    job_id, _ = await memories.extract_job(manager_config={"apply": "review"})
    with pytest.raises(JobStateError, match="awaiting_review"):
        await memories.undos.undo(ANONYMOUS, job_id)
    await memories.reviews.apply(ANONYMOUS, job_id)
    assert (await undo(memories, job_id))["counts"] == {"undone": 1, "skipped": 0}
    job_id, _ = await memories.extract_job(manager_config={"strategy": "verbatim"})
    assert (await undo(memories, job_id))["counts"] == {"undone": 1, "skipped": 0}
    assert await memories.stored() == []
    job_id, _ = await memories.extract_job()  # which changed nothing
    assert "undo" not in (await memories.undos.undo(ANONYMOUS, job_id)).result_object


async def test_undoing_takes_the_grants_of_its_writes(memories: Memories) -> None:
    job_id = await change(memories)
    for missing in (Verb.WRITE, Verb.DELETE):
        access = Access("mk_1", ALL_ROOTS, (Grant((), frozenset(set(Verb) - {missing})),))
        with pytest.raises(ForbiddenError):
            await memories.undos.undo(access, job_id)
    assert [state for state, _ in await outcomes(memories, job_id)] == ["applied"] * 3


@pytest.mark.slow
async def test_many_who_undo_at_once_undo_once(memories: Memories) -> None:
    job_id = await change(memories)

    async def undo_job(_: int) -> None:
        await memories.undos.undo(ANONYMOUS, job_id)

    await at_once(8, undo_job)
    assert (await memories.result(job_id))["undo"]["counts"] == {"undone": 3, "skipped": 0}
    assert len(await memories.history("home")) == 3
