import json
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, ANONYMOUS, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.changes.circuit_breaker import HARMLESS, REVIEW_REQUESTED
from app.changes.review import OUTDATED, REPEATED, UNFOUNDED
from app.jobs.errors import JobNotFoundError, JobStateError
from app.jobs.record import State
from app.namespaces import ALL_ROOTS, Root, to_root, to_stored
from tests.support.extraction import ANA, SAID, Extracting, counts, memory_value
from tests.support.load import at_once
from tests.support.scripted_model import NOTHING, calls, delete, insert, update

LISBON = "Ana lives in Lisbon."
REVIEW = {"apply": "review", "enable_deletes": True}


async def proposed(extracting: Extracting, *wanted: Any, **more: Any) -> tuple[str, Any]:
    """Let a job propose changes of what lives in Porto, has a dog and drinks tea."""
    await extracting.put("home", "Ana lives in Porto.")
    await extracting.put("pet", "Ana has a dog.", ttl_seconds=9_000)
    await extracting.put("drink", "Ana drinks tea.")
    wanted = wanted or (update("m1", LISBON), delete("m2", "it died"), insert("Ana is a cook."))
    extracting.model.script.append(calls(*wanted))
    return await extracting.settled(**{"manager_config": REVIEW, **more})


async def states(extracting: Extracting, job_id: str) -> list[tuple[str, str, str | None]]:
    return [
        (change.action, change.state, change.state_reason)
        for change in await extracting.changes(job_id)
    ]


async def test_changes_wait_and_nothing_is_written(extracting: Extracting) -> None:
    job_id, result = await proposed(extracting)
    assert await extracting.state(job_id) == State.AWAITING_REVIEW
    assert result["counts"] == counts()
    assert result["proposed"] == {"inserted": 1, "updated": 1, "deleted": 1}
    assert result["review"] == {"reason": REVIEW_REQUESTED}
    assert await extracting.said() == ["Ana drinks tea.", "Ana has a dog.", "Ana lives in Porto."]
    assert [state for _, state, _ in await states(extracting, job_id)] == ["proposed"] * 3


async def test_a_memory_is_not_deleted_where_what_took_it_in_was_changed(
    extracting: Extracting,
) -> None:
    job_id, _ = await proposed(extracting)
    await extracting.put("home", "Ana lives in Faro.")
    await extracting.reviews.apply(ANONYMOUS, job_id)
    assert sorted(await states(extracting, job_id)) == [
        ("delete", "rejected", UNFOUNDED),
        ("insert", "applied", None),
        ("update", "rejected", OUTDATED),
    ]


async def test_without_a_change_there_is_nothing_to_wait_for(extracting: Extracting) -> None:
    extracting.model.script.append(NOTHING)
    job_id, result = await extracting.settled(manager_config=REVIEW)
    assert await extracting.state(job_id) == State.SUCCEEDED
    assert result["counts"] == counts()


async def test_a_model_that_deletes_everything_is_stopped(extracting: Extracting) -> None:
    job_id, result = await proposed(
        extracting,
        delete("m1"),
        delete("m2"),
        delete("m3"),
        manager_config={"enable_deletes": True},
    )
    assert await extracting.state(job_id) == State.AWAITING_REVIEW
    assert "3 of the 3 memories" in result["review"]["reason"]
    assert len(await extracting.said()) == 3


async def test_two_deletions_are_harmless_and_three_of_many_too(extracting: Extracting) -> None:
    job_id, _ = await proposed(
        extracting, delete("m1"), delete("m2"), manager_config={"enable_deletes": True}
    )
    assert HARMLESS == 2
    assert await extracting.state(job_id) == State.SUCCEEDED
    for number in range(8):
        await extracting.put(f"k{number}", f"Ana knows {number}.")
    extracting.model.script.append(calls(delete("m1"), delete("m2"), delete("m3")))
    job_id, _ = await extracting.settled(manager_config={"enable_deletes": True})
    assert await extracting.state(job_id) == State.SUCCEEDED


async def test_what_is_applied_is_what_was_proposed(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting, thread_id="t")
    job = await extracting.reviews.apply(ANONYMOUS, job_id)
    assert (job.state, job.finished_at is None) == (State.SUCCEEDED, False)
    result = job.result_object
    assert result["counts"] == counts(inserted=1, updated=1, deleted=1)
    assert result["review"]["decision"] == "applied"
    assert result["review"]["by"] == "anonymous"
    assert await extracting.said() == ["Ana drinks tea.", "Ana is a cook.", LISBON]
    changes = await extracting.changes(job_id)
    assert [(change.state, change.version_after) for change in changes] == [
        ("applied", 2),
        ("applied", 2),
        ("applied", 1),
    ]
    home = await extracting.get("home")
    assert json.loads(home["source"])["job_id"] == job_id
    assert (await extracting.history("home"))[-1]["actor"] == f"anonymous {job_id}"


async def test_changes_of_items_changed_since_are_rejected_and_the_others_applied(
    extracting: Extracting,
) -> None:
    job_id, _ = await proposed(extracting)
    await extracting.put("home", "Ana lives in Faro.")
    await extracting.delete("pet")
    result = (await extracting.reviews.apply(ANONYMOUS, job_id)).result_object
    assert result["counts"] == counts(inserted=1, rejected=2)
    assert await states(extracting, job_id) == [
        ("update", "rejected", OUTDATED),
        ("delete", "rejected", OUTDATED),
        ("insert", "applied", None),
    ]
    assert await extracting.said() == ["Ana drinks tea.", "Ana is a cook.", "Ana lives in Faro."]


async def test_an_insert_that_was_learned_otherwise_since_is_rejected(
    extracting: Extracting,
) -> None:
    job_id, _ = await proposed(extracting)
    await extracting.put("theirs", {"text": "ana is a cook"})
    result = (await extracting.reviews.apply(ANONYMOUS, job_id)).result_object
    assert result["counts"] == counts(updated=1, deleted=1, rejected=1)
    assert (await states(extracting, job_id))[2] == ("insert", "rejected", REPEATED)


async def test_what_is_discarded_is_never_written(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting)
    job = await extracting.reviews.discard(ANONYMOUS, job_id)
    assert job.state == State.CANCELLED
    assert job.result_object["review"]["decision"] == "discarded"
    assert [state for _, state, _ in await states(extracting, job_id)] == ["discarded"] * 3
    assert await extracting.said() == ["Ana drinks tea.", "Ana has a dog.", "Ana lives in Porto."]
    with pytest.raises(JobStateError, match="cancelled"):
        await extracting.reviews.apply(ANONYMOUS, job_id)


async def test_a_discarded_job_that_is_tried_again_proposes_anew(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting)
    await extracting.reviews.discard(ANONYMOUS, job_id)
    extracting.model.script.append(calls(insert("Ana is a cook.")))
    await extracting.do(await extracting.restart(job_id))
    assert await states(extracting, job_id) == [("insert", "proposed", None)]


async def test_only_what_awaits_a_review_can_be_decided_about(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting)
    await extracting.reviews.apply(ANONYMOUS, job_id)
    for decide in (extracting.reviews.apply, extracting.reviews.discard):
        with pytest.raises(JobStateError, match="succeeded"):
            await decide(ANONYMOUS, job_id)
    running = await extracting.begin()
    with pytest.raises(JobStateError, match="running"):
        await extracting.reviews.apply(ANONYMOUS, running.id)


@pytest.mark.slow
async def test_many_who_apply_at_once_apply_once(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting)

    async def decide(number: int) -> bool:
        act = extracting.reviews.discard if number == 0 else extracting.reviews.apply
        try:
            await act(ANONYMOUS, job_id)
        except JobStateError:
            return False
        return True

    assert sum(await at_once(8, decide)) == 1
    state = await extracting.state(job_id)
    said = len(await extracting.history("home"))
    assert (state, said) in {(State.SUCCEEDED, 2), (State.CANCELLED, 1)}


def reviewer(*verbs: Verb, prefix: tuple[str, ...] = (), root: Root = ALL_ROOTS) -> Access:
    return Access("mk_1", root, (Grant(prefix, frozenset(verbs)),))


@pytest.mark.parametrize("missing", [Verb.WRITE, Verb.DELETE])
async def test_a_reviewer_may_do_only_what_the_key_may(
    extracting: Extracting, missing: Verb
) -> None:
    job_id, _ = await proposed(extracting)
    access = reviewer(*(set(Verb) - {missing}))
    with pytest.raises(ForbiddenError):
        await extracting.reviews.apply(access, job_id)
    assert await extracting.state(job_id) == State.AWAITING_REVIEW
    assert len(await extracting.history("home")) == 1


async def test_changes_show_values_only_to_readers(extracting: Extracting) -> None:
    job_id, _ = await proposed(extracting)
    with pytest.raises(ForbiddenError):
        await extracting.changes(job_id, reviewer(Verb.JOBS, Verb.WRITE))
    assert len(await extracting.changes(job_id, reviewer(Verb.JOBS, Verb.READ))) == 3


async def test_jobs_of_another_root_or_prefix_are_not_there(extracting: Extracting) -> None:
    acme = Access("mk_2", to_root(["acme"]), ALL_GRANTED)
    extracting.model.script.append(calls(insert(LISBON)))
    job = await extracting.begin(SAID, access=acme, manager_config=REVIEW)
    await extracting.do(job)
    for access in (
        reviewer(*Verb, root=to_root(["other"])),
        reviewer(*Verb, root=to_root(["acme"]), prefix=("users", "ben")),
    ):
        for act in (
            extracting.reviews.apply,
            extracting.reviews.discard,
            extracting.undoing.undo,
        ):
            with pytest.raises(JobNotFoundError):
                await act(access, job.id)
        with pytest.raises(JobNotFoundError):
            await extracting.changes(job.id, access)
    within = reviewer(*Verb, root=to_root(["acme"]), prefix=tuple(ANA))
    assert (await extracting.reviews.apply(within, job.id)).state == State.SUCCEEDED
    (row,) = await extracting.stored()
    assert row["namespace"] == to_stored(["acme", *ANA])
    assert json.loads(row["value"]) == memory_value(LISBON)
