import json
from datetime import UTC, datetime

from app.jobs.job import State
from app.managers.instructions import PROMPT_VERSION
from tests.managers.extracting import Extracting, counts, memory_value
from tests.managers.scripted import NOTHING, calls, delete, insert, update

LISBON = "Ana lives in Lisbon."


async def test_a_memory_is_written_with_all_that_is_known_of_it(extracting: Extracting) -> None:
    extracting.model.script.append(
        calls(insert(LISBON, importance=0.8, valid_from="2026-05-03", message_ids=["2"]))
    )
    messages = [
        {"id": "a", "role": "assistant", "content": "How are you?"},
        {"id": "b", "role": "user", "content": "I moved to Lisbon."},
    ]
    job_id, result = await extracting.settled(messages, thread_id="t1", position=6)
    (row,) = await extracting.stored()
    assert json.loads(row["value"]) == memory_value(LISBON)
    assert row["importance"] == 0.8
    assert row["valid_from"] == datetime(2026, 5, 3, tzinfo=UTC)
    assert json.loads(row["source"]) == {
        "thread_id": "t1",
        "position": 7,
        "message_ids": ["b"],
        "job_id": job_id,
        "model": "scripted:model",
        "prompt_version": PROMPT_VERSION,
    }
    assert result == {
        "counts": counts(inserted=1),
        "rejected": [],
        "model": "scripted:model",
        "prompt_version": PROMPT_VERSION,
        "rounds": 1,
    }
    (version,) = await extracting.history(row["key"])
    assert version["actor"] == f"anonymous {job_id}"
    assert await extracting.state(job_id) == State.SUCCEEDED


async def test_updates_and_deletes_reach_the_items_that_the_model_was_shown(
    extracting: Extracting,
) -> None:
    await extracting.put("home", "Ana lives in Porto.", importance=0.7, pinned=True)
    await extracting.put("pet", "Ana has a dog.")
    extracting.model.script.append(calls(update("m1", LISBON), delete("m2")))
    result = await extracting.extract(manager={"enable_deletes": True})
    assert result["counts"] == counts(updated=1, deleted=1)
    home = await extracting.get("home")
    assert json.loads(home["value"]) == memory_value(LISBON)
    assert (home["importance"], home["pinned"], home["version"]) == (0.7, True, 2)
    assert await extracting.get("pet") is None
    assert "home" not in extracting.model.shown


async def test_doing_nothing_is_said_to_be_nothing(extracting: Extracting) -> None:
    extracting.model.script.append(NOTHING)
    job_id, result = await extracting.settled()
    assert result["counts"] == counts()
    assert await extracting.stored() == []
    assert await extracting.changes(job_id) == []
    assert [event for event, _ in await extracting.events(job_id)] == [
        "queued",
        "retrieved",
        "proposed",
        "applied",
        "succeeded",
    ]


async def test_every_change_is_kept_with_the_versions_around_it(extracting: Extracting) -> None:
    await extracting.put("home", "Ana lives in Porto.")
    await extracting.put("pet", "Ana has a dog.")
    extracting.model.script.append(
        calls(update("m1", LISBON), delete("m2", "it died"), insert("Ana likes tea."))
    )
    job_id, _ = await extracting.settled(manager={"enable_deletes": True})
    changes = await extracting.changes(job_id)
    kept = [
        (row["action"], row["state"], row["version_before"], row["version_after"], row["reason"])
        for row in changes
    ]
    assert kept == [
        ("update", "applied", 1, 2, None),
        ("delete", "applied", 1, 2, "it died"),
        ("insert", "applied", None, 1, None),
    ]
    assert json.loads(changes[0]["value_before"]) == memory_value("Ana lives in Porto.")
    assert json.loads(changes[1]["value_before"]) == memory_value("Ana has a dog.")
    assert changes[1]["value"] is None


async def test_a_lifetime_is_given_to_what_is_new_and_left_to_what_is_there(
    extracting: Extracting,
) -> None:
    await extracting.put("home", "Ana lives in Porto.")
    extracting.model.script.append(calls(update("m1", LISBON), insert("Ana likes tea.")))
    await extracting.extract(manager={"ttl_seconds": 60})
    lifetimes = [row["ttl"] and row["ttl"].total_seconds() for row in await extracting.stored()]
    assert lifetimes == [None, 60]


async def test_a_refused_call_is_told_and_the_others_stand(extracting: Extracting) -> None:
    extracting.model.script.append(calls(insert(LISBON), update("m9", "?")))
    result = await extracting.extract()
    assert result["counts"] == counts(inserted=1, rejected=1)
    assert result["rejected"][0]["tool"] == "update_memory"
    assert await extracting.said() == [LISBON]
