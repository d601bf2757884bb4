import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.config import Settings
from app.extraction.prompt import PROMPT_VERSION
from app.jobs.record import State
from app.providers.embedder import FakeEmbedder
from app.resources import open_resources
from tests.support.extraction import Memories, counts, memory_value
from tests.support.scripted_model import NOTHING, calls, delete, insert, update

LISBON = "Ana lives in Lisbon."


async def test_a_memory_is_written_with_all_its_details(memories: Memories) -> None:
    memories.model.script.append(
        calls(insert(LISBON, importance=0.8, valid_from="2026-05-03", message_ids=["2"]))
    )
    messages = [
        {"id": "a", "role": "assistant", "content": "How are you?"},
        {"id": "b", "role": "user", "content": "I moved to Lisbon.", "created_at": "2026-05-04"},
    ]
    job_id, result = await memories.extract_job(messages, thread_id="t1", position=6)
    (row,) = await memories.stored()
    assert json.loads(row["value"]) == memory_value(LISBON)
    assert row["importance"] == 0.8
    assert row["valid_from"] == datetime(2026, 5, 3, tzinfo=UTC)
    assert row["said_first"] == row["said_last"] == datetime(2026, 5, 4, tzinfo=UTC)
    assert (row["valid_from_precision"], row["source_class"]) == ("day", "user")
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
    (version,) = await memories.history(row["key"])
    assert version["actor"] == f"anonymous {job_id}"
    assert await memories.state(job_id) == State.SUCCEEDED


async def test_updates_and_deletes_reach_the_items_and_are_recorded(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.", importance=0.7, pinned=True)
    await memories.put("pet", "Ana has a dog.")
    memories.model.script.append(
        calls(
            *(update("m1", LISBON), delete("m2", "it died"), insert("Ana likes tea.")),
            update("m9", "?"),
        )
    )
    job_id, result = await memories.extract_job(
        manager_config={"enable_deletes": True, "ttl_seconds": 60}
    )
    assert result["counts"] == counts(inserted=1, updated=1, deleted=1, rejected=1)
    assert [rejected["tool"] for rejected in result["rejected"]] == ["update_memory"]
    assert "home" not in memories.model.prompt
    home, tea = await memories.stored()
    assert json.loads(home["value"]) == memory_value(LISBON)
    assert (home["importance"], home["pinned"], home["version"]) == (0.7, True, 2)
    assert (home["ttl"], tea["ttl"]) == (None, timedelta(seconds=60))  # only new ones get one
    listed = await memories.listed_changes(job_id)
    recorded = [
        (change.action, change.state, change.version_before, change.version_after, change.reason)
        for change in (one.change for one in listed)
    ]
    assert recorded == [
        ("update", "applied", 1, 2, None),
        ("delete", "applied", 1, 2, "it died"),
        ("insert", "applied", None, 1, None),
    ]
    assert json.loads(listed[0].value_before or "") == memory_value("Ana lives in Porto.")
    assert json.loads(listed[1].value_before or "") == memory_value("Ana has a dog.")
    assert listed[1].change.value is None


async def test_an_update_keeps_the_messages_of_earlier_sources(memories: Memories) -> None:
    message = [{"id": "a", "role": "user", "content": "Hi."}]
    texts = ["Ana lives in Porto.", LISBON, "Ana lives in Faro.", "Ana lives in Rome."]
    memories.model.script.append(calls(insert(texts[0], message_ids=["1"])))
    await memories.extract_job(message, thread_id="t1")
    for text, thread, id_ in zip(texts[1:], ("t1", "t2", "t3"), "bcd", strict=True):
        memories.model.script.append(calls(update("m1", text, message_ids=["1"])))
        await memories.extract_job([{**message[0], "id": id_}], thread_id=thread)
    source = json.loads((await memories.stored())[0]["source"])
    assert (source["thread_id"], source["message_ids"]) == ("t3", ["d"])
    assert source["earlier"] == [
        {"thread_id": "t2", "message_ids": ["c"]},
        {"thread_id": "t1", "message_ids": ["a", "b"]},
    ]


@pytest.mark.parametrize("written", [5, "x", {"a": 1}, [1, None, {}], None])
async def test_a_source_may_have_members_of_any_form(memories: Memories, written: Any) -> None:
    source = {"thread_id": "t1", "message_ids": written, "earlier": written}
    await memories.put("home", "Ana lives in Porto.", source=source)
    for thread in ("t1", "t2"):
        memories.model.script.append(calls(update("m1", f"Ana, {thread}", message_ids=["1"])))
        message = {"id": thread, "role": "user", "content": "Hi."}
        result = await memories.extract([message], thread_id=thread)
        assert result["counts"]["updated"] == 1


async def test_an_update_without_messages_keeps_the_source(memories: Memories) -> None:
    numbers = [str(number) for number in range(1, 601)]
    memories.model.script += [
        calls(insert("Ana lives in Porto.", message_ids=numbers)),
        calls(update("m1", LISBON)),
    ]
    messages = [{"id": number, "role": "user", "content": "Hi."} for number in numbers]
    await memories.extract_job(messages, thread_id="t1", position=3)
    job_id, _ = await memories.extract_job(thread_id="t2")
    (row,) = await memories.stored()
    source = json.loads(row["source"])
    assert source["message_ids"] == numbers[:500]
    assert (source["thread_id"], source["position"], source["job_id"]) == ("t1", 3, job_id)


async def test_questions_that_a_memory_answers_are_kept_for_searches(memories: Memories) -> None:
    questions = ["Which city?", "Which city?", " ", 5, "Where?", "Whose home?", "A fourth?"]
    memories.model.script.append(calls(insert(LISBON, questions=questions)))
    await memories.extract()
    (properties,) = [
        tool.parameters["properties"]
        for tool in memories.model.requests[0].tools
        if tool.name == "insert_memory"
    ]
    assert properties["questions"]["items"] == {"type": "string"}
    sql = "SELECT text FROM passages WHERE path = '?' ORDER BY ordinal"
    kept = [row["text"] for row in await memories.rows(sql)]
    assert kept == ["Which city?", "Where?", "Whose home?"]
    memories.model.script.append(calls(update("m1", "Ana lives in Faro.")))
    await memories.extract(manager_config={"questions": False})
    assert [row["text"] for row in await memories.rows(sql)] == kept
    assert "questions" not in str(memories.model.requests[-1].tools)


async def test_events_report_the_memories_shown_and_the_cost(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.")
    memories.model.script += [NOTHING, calls(update("m1", LISBON), insert("Ana is a cook."))]
    for changes in (0, 2):
        job_id, _ = await memories.extract_job()
        assert len(await memories.changes(job_id)) == changes
        names = [event for event, _ in await memories.events(job_id)]
        assert names == ["queued", "retrieved", "model_call", "proposed", "applied", "succeeded"]
    events = dict(await memories.events(job_id))
    assert events["retrieved"] == {"existing": 1, "all": True, "keys": {"m1": "home"}}
    assert events["model_call"].pop("duration_ms") >= 0
    assert events["model_call"] == {
        "purpose": "extract",
        "model": "scripted",
        "finish_reason": "tools",
        "tool_calls": 2,
        "input_tokens": 1,
        "output_tokens": 1,
        "cached_tokens": 0,
        "cost_usd": None,
    }


@pytest.mark.parametrize("corrected", [False, True])
async def test_a_default_is_written_with_the_first_result_only(
    memories: Memories, corrected: bool
) -> None:
    manager = {"default": {"content": "Nothing is known of Ana."}}
    memories.model.script += [calls(update("m1", LISBON)) if corrected else NOTHING, NOTHING]
    result = await memories.extract(manager_config=manager)
    assert "Nothing is known of Ana." in memories.model.prompt
    assert result["counts"] == counts(inserted=1)
    text = LISBON if corrected else "Nothing is known of Ana."
    assert await memories.value("default") == memory_value(text)
    assert (await memories.extract(manager_config=manager))["counts"] == counts()
    assert len(await memories.history("default")) == 1


async def test_a_profile_is_created_without_inserts_and_then_patched(memories: Memories) -> None:
    manager = {"kinds": [{"name": "profile"}], "enable_inserts": False}
    edit = {"op": "add", "path": "/occupation", "value": "baker"}
    memories.model.script += [
        calls(("insert_profile", {"content": {"name": "Ana"}, "importance": 0.9})),
        calls(("update_memory", {"id": "m1", "edits": [edit]})),
    ]
    await memories.extract(manager_config=manager)
    await memories.extract(manager_config=manager)
    (row,) = await memories.stored()
    assert (row["key"], row["version"], row["importance"]) == ("profile", 2, 0.9)
    content = {"name": "Ana", "occupation": "baker"}
    assert json.loads(row["value"]) == {"kind": "profile", "content": content}


async def test_values_of_other_shapes_keep_their_shape(memories: Memories) -> None:
    await memories.put("tool", {"content": "Ana lives in Porto."})
    await memories.put("nested", {"content": {"content": "Ana has a dog."}})
    await memories.put("free", {"content": "Ana likes tea.", "tags": ["x"]}, index=["tags"])
    await memories.put("odd", {"kind": 7})
    memories.model.script.append(
        calls(update("m1", LISBON), update("m2", "Ana has a cat."), update("m3", "Ana likes mate."))
    )
    result = await memories.extract(manager_config={"max_change_share": 1})
    assert result["counts"] == counts(updated=3)
    assert await memories.value("tool") == {"content": LISBON}
    assert await memories.value("nested") == {"content": {"content": "Ana has a cat."}}
    assert await memories.value("free") == {"content": "Ana likes mate.", "tags": ["x"]}
    assert json.loads((await memories.get("free"))["index_paths"]) == ["tags"]


async def test_phases_continue_with_the_results_of_those_before(memories: Memories) -> None:
    await memories.put("home", "Ana lives in Porto.")
    await memories.put("pet", "Ana has a dog.")
    memories.model.script += [
        calls(update("m1", LISBON), insert("Ana is a baker.", importance=0.3)),
        calls(delete("m2"), update("m3", "Ana is a baker and cook."), insert("Ana is busy.")),
        calls(delete("m4"), insert("Ana works a lot.")),
    ]
    result = await memories.extract(
        manager_config={
            "max_change_share": 1,
            "phases": [
                {"instructions": "Merge.", "include_messages": True},
                {"instructions": "Tidy up."},
            ],
        }
    )
    assert result["counts"] == counts(inserted=2, updated=1, deleted=1)
    said = ["Ana is a baker and cook.", LISBON, "Ana works a lot."]
    assert await memories.texts() == said
    first, second, third = memories.model.requests
    assert "I moved to Lisbon." in first.messages[0].text
    assert "I moved to Lisbon." in second.messages[0].text
    assert "Merge." in second.system
    assert "I moved to Lisbon." not in third.messages[0].text
    assert "Ana is busy." in third.messages[0].text


async def test_an_id_is_not_reused_in_a_later_phase(memories: Memories) -> None:
    await memories.put("pet", "Ana has a dog.")
    memories.model.script += [
        calls(delete("m1"), insert("Ana has a cat.")),
        calls(delete("m2")),
        calls(insert("Ana has a bird.")),
    ]
    phases = [{"instructions": "a"}, {"instructions": "b", "include_messages": True}]
    manager = {"enable_deletes": True, "phases": phases}
    assert (await memories.extract(manager_config=manager))["counts"] == counts(
        inserted=1, deleted=1
    )
    assert await memories.texts() == ["Ana has a bird."]


async def test_without_a_namespace_memories_are_returned_not_stored(memories: Memories) -> None:
    memories.model.script.append(
        calls(
            update("m1", LISBON, importance=0.8, valid_from="2026-05-03"),
            delete("m3"),
            insert("Ana likes tea.", importance=0.4),
            insert("Ana has a DOG"),
        )
    )
    job_id, result = await memories.extract_job(
        namespace=None,
        manager_config={"enable_deletes": True},
        existing=[
            {"id": "x", "content": {"content": "Ana lives in Porto."}},
            {"content": {"content": "Ana has a dog."}},
            {"id": "z", "kind": "note", "content": {"any": "thing"}},
            {"id": "u", "content": {"content": "Ana has a cat."}},
        ],
    )
    first, second, untouched, third = result["memories"]
    assert first == {
        "id": "x",
        "kind": "memory",
        "content": {"content": LISBON},
        "importance": 0.8,
        "valid_from": "2026-05-03",
        "change": "updated",
    }
    content = {"content": "Ana has a dog."}  # a duplicate of it was inserted
    assert (second["content"], second["importance"], second["change"]) == (content, 0.5, "updated")
    assert (third["content"], third["change"]) == ({"content": "Ana likes tea."}, "inserted")
    assert len({first["id"], second["id"], third["id"]}) == 3
    details = {"kind": "memory", "importance": None, "valid_from": None, "change": "unchanged"}
    assert untouched == {"id": "u", "content": {"content": "Ana has a cat."}, **details}
    assert result["deleted"] == ["z"]
    assert result["counts"] == counts(inserted=1, updated=2, deleted=1)
    assert await memories.stored() == []
    assert await memories.changes(job_id) == []
    assert await memories.state(job_id) == State.SUCCEEDED


async def test_nothing_is_deleted_if_another_change_cannot_be_stored(
    settings: Settings, embedder: FakeEmbedder
) -> None:
    small = settings.model_copy(update={"max_value_bytes": 1024})
    async with open_resources(small, embedder=embedder) as opened:
        memories = Memories(opened)
        await memories.put("home", "Ana lives in Porto.")
        await memories.put("pet", "Ana has a dog.")
        memories.model.script.append(calls(update("m1", LISBON * 60), delete("m2")))
        result = await memories.extract(manager_config={"enable_deletes": True})
        assert result["counts"] == counts(rejected=2)
        assert "may rest on it" in result["rejected"][1]["reason"]
        assert await memories.value("pet") == memory_value("Ana has a dog.")
