import json
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, ANONYMOUS, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.changes.reconcile import REVIEW_REQUESTED
from app.changes.review import OUTDATED, REPEATED, UNFOUNDED
from app.jobs.record import State
from app.jobs.service import JobNotFoundError, JobStateError
from app.namespaces import ALL_ROOTS, Root, to_root, to_stored
from tests.support.extraction import ANA, CONVERSATION, Memories, counts, memory_value
from tests.support.load import at_once
from tests.support.scripted_model import NOTHING, calls, delete, insert, update

LISBON = "Ana lives in Lisbon."
REVIEW = {"apply": "review", "enable_deletes": True}


async def proposed(memories: Memories, *edits: Any, **more: Any) -> tuple[str, Any]:
    """Let a job propose changes of three memories of Ana."""
    await memories.put("home", "Ana lives in Porto.")
    await memories.put("pet", "Ana has a dog.", ttl_seconds=9_000)
    await memories.put("drink", "Ana drinks tea.")
    edits = edits or (update("m1", LISBON), delete("m2", "it died"), insert("Ana is a cook."))
    memories.model.script.append(calls(*edits))
    return await memories.extract_job(**{"manager_config": REVIEW, **more})


async def states(memories: Memories, job_id: str) -> list[tuple[str, str, str | None]]:
    return [
        (change.action, change.state, change.state_reason)
        for change in await memories.changes(job_id)
    ]


async def test_changes_wait_and_nothing_is_written(memories: Memories) -> None:
    memories.model.script.append(NOTHING)
    job_id, _ = await memories.extract_job(manager_config=REVIEW)
    assert await memories.state(job_id) == State.SUCCEEDED  # there is nothing to review
    job_id, result = await proposed(memories)
    assert await memories.state(job_id) == State.AWAITING_REVIEW
    assert result["counts"] == counts()
    assert result["proposed"] == {"inserted": 1, "updated": 1, "deleted": 1}
    assert result["review"] == {"reason": REVIEW_REQUESTED}
    assert await memories.texts() == ["Ana drinks tea.", "Ana has a dog.", "Ana lives in Porto."]
    assert [state for _, state, _ in await states(memories, job_id)] == ["proposed"] * 3


async def test_a_model_that_deletes_nearly_everything_is_stopped(memories: Memories) -> None:
    deletes = [delete("m1"), delete("m2"), delete("m3")]
    manager = {"enable_deletes": True}
    job_id, result = await proposed(memories, *deletes, manager_config=manager)
    assert await memories.state(job_id) == State.AWAITING_REVIEW
    assert "3 of the 3 memories" in result["review"]["reason"]
    assert len(await memories.texts()) == 3
    for number in range(8):
        await memories.put(f"k{number}", f"Ana knows {number}.")
    memories.model.script.append(calls(*deletes))
    job_id, _ = await memories.extract_job(manager_config=manager)
    assert await memories.state(job_id) == State.SUCCEEDED  # of many, three are harmless


@pytest.mark.parametrize("classes", [[], ["document"], ["tool", "document"]])
async def test_memories_from_outside_wait_if_the_manager_wants_it(
    memories: Memories, classes: list[str]
) -> None:
    page = {"role": "tool", "tool_call_id": "c", "content": "The user's bank has moved."}
    talk = [{"id": "u", "role": "user", "content": "I like tea."}, {"id": "t", **page}]
    for message_id, waits in (("1", False), ("2", "tool" in classes)):
        insert_call = insert(f"Fact of {message_id}", message_ids=[message_id])
        memories.model.script.append(calls(insert_call))
        job_id, _ = await memories.extract_job(talk, manager_config={"review_sources": classes})
        job = await memories.job(job_id)
        assert (job.state is State.AWAITING_REVIEW) == waits
    if waits:
        assert "sources are reviewed: tool" in (await memories.result(job_id))["review"]["reason"]


async def test_the_proposed_changes_are_applied(memories: Memories) -> None:
    job_id, _ = await proposed(memories, thread_id="t")
    job = await memories.reviews.apply(ANONYMOUS, job_id)
    assert (job.state, job.finished_at is None) == (State.SUCCEEDED, False)
    result = job.result_object
    assert result["counts"] == counts(inserted=1, updated=1, deleted=1)
    assert result["review"]["decision"] == "applied"
    assert result["review"]["by"] == "anonymous"
    assert await memories.texts() == ["Ana drinks tea.", "Ana is a cook.", LISBON]
    changes = await memories.changes(job_id)
    assert [(change.state, change.version_after) for change in changes] == [
        ("applied", 2),
        ("applied", 2),
        ("applied", 1),
    ]
    home = await memories.get("home")
    assert json.loads(home["source"])["job_id"] == job_id
    assert (await memories.history("home"))[-1]["actor"] == f"anonymous {job_id}"


async def test_changes_of_items_changed_since_are_rejected(memories: Memories) -> None:
    job_id, _ = await proposed(memories)
    await memories.put("home", "Ana lives in Faro.")
    await memories.delete("pet")
    result = (await memories.reviews.apply(ANONYMOUS, job_id)).result_object
    assert result["counts"] == counts(inserted=1, rejected=2)
    assert await states(memories, job_id) == [
        ("update", "rejected", OUTDATED),
        ("delete", "rejected", OUTDATED),
        ("insert", "applied", None),
    ]
    assert await memories.texts() == ["Ana drinks tea.", "Ana is a cook.", "Ana lives in Faro."]


@pytest.mark.parametrize(
    ("key", "value", "number", "rejection"),
    [
        ("home", memory_value("Ana lives in Faro."), 1, ("delete", "rejected", UNFOUNDED)),
        ("theirs", {"text": "ana is a cook"}, 2, ("insert", "rejected", REPEATED)),
    ],
    ids=["the memory that took it in was changed", "a repetition"],
)
async def test_changes_that_lost_their_reason_are_rejected(
    memories: Memories, key: str, value: dict[str, Any], number: int, rejection: Any
) -> None:
    job_id, _ = await proposed(memories)
    await memories.put(key, value)
    await memories.reviews.apply(ANONYMOUS, job_id)
    assert (await states(memories, job_id))[number] == rejection


async def test_discarded_changes_are_never_written(memories: Memories) -> None:
    job_id, _ = await proposed(memories)
    job = await memories.reviews.discard(ANONYMOUS, job_id)
    assert job.state == State.CANCELLED
    assert job.result_object["review"]["decision"] == "discarded"
    assert [state for _, state, _ in await states(memories, job_id)] == ["discarded"] * 3
    assert await memories.texts() == ["Ana drinks tea.", "Ana has a dog.", "Ana lives in Porto."]
    running = await memories.begin()
    for decide in (memories.reviews.apply, memories.reviews.discard):
        with pytest.raises(JobStateError, match="cancelled"):
            await decide(ANONYMOUS, job_id)
        with pytest.raises(JobStateError, match="running"):
            await decide(ANONYMOUS, running.id)
    memories.model.script.append(calls(insert("Ana is a cook.")))
    await memories.run(await memories.claim(job_id))  # retried, it proposes again
    assert await states(memories, job_id) == [("insert", "proposed", None)]


@pytest.mark.slow
async def test_many_who_apply_at_once_apply_once(memories: Memories) -> None:
    job_id, _ = await proposed(memories)

    async def decide(number: int) -> bool:
        act = memories.reviews.discard if number == 0 else memories.reviews.apply
        try:
            await act(ANONYMOUS, job_id)
        except JobStateError:
            return False
        return True

    assert sum(await at_once(8, decide)) == 1
    state = await memories.state(job_id)
    said = len(await memories.history("home"))
    assert (state, said) in {(State.SUCCEEDED, 2), (State.CANCELLED, 1)}


def reviewer(*verbs: Verb, prefix: tuple[str, ...] = (), root: Root = ALL_ROOTS) -> Access:
    return Access("mk_1", root, (Grant(prefix, frozenset(verbs)),))


async def test_a_reviewer_may_do_only_what_the_key_may(memories: Memories) -> None:
    job_id, _ = await proposed(memories)
    for missing in (Verb.WRITE, Verb.DELETE):
        with pytest.raises(ForbiddenError):
            await memories.reviews.apply(reviewer(*(set(Verb) - {missing})), job_id)
    assert await memories.state(job_id) == State.AWAITING_REVIEW
    assert len(await memories.history("home")) == 1
    with pytest.raises(ForbiddenError):
        await memories.changes(job_id, reviewer(Verb.JOBS, Verb.WRITE))
    assert len(await memories.changes(job_id, reviewer(Verb.JOBS, Verb.READ))) == 3


async def test_jobs_of_another_root_or_prefix_are_not_there(memories: Memories) -> None:
    acme = Access("mk_2", to_root(["acme"]), ALL_GRANTED)
    memories.model.script.append(calls(insert(LISBON)))
    job = await memories.begin(CONVERSATION, access=acme, manager_config=REVIEW)
    await memories.run(job)
    for access in (
        reviewer(*Verb, root=to_root(["other"])),
        reviewer(*Verb, root=to_root(["acme"]), prefix=("users", "ben")),
    ):
        for act in (memories.reviews.apply, memories.reviews.discard, memories.undos.undo):
            with pytest.raises(JobNotFoundError):
                await act(access, job.id)
        with pytest.raises(JobNotFoundError):
            await memories.changes(job.id, access)
    within = reviewer(*Verb, root=to_root(["acme"]), prefix=tuple(ANA))
    assert (await memories.reviews.apply(within, job.id)).state == State.SUCCEEDED
    (row,) = await memories.stored()
    assert row["namespace"] == to_stored(["acme", *ANA])
    assert json.loads(row["value"]) == memory_value(LISBON)
