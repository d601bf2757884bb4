import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.jobs.record import State
from tests.support.extraction import Memories, counts
from tests.support.load import at_once

VERBATIM = {"strategy": "verbatim"}
TALK: list[dict[str, Any]] = [
    {"id": "a", "role": "system", "content": "Be kind."},
    {"id": "b", "role": "user", "content": "Hello!", "created_at": "2026-05-03T10:00:00Z"},
    {"id": "c", "role": "assistant", "content": "Hi Ana.", "name": "Bot"},
    {"id": "d", "role": "user", "content": [{"type": "image", "source": {}}, "Look"]},
    {"id": "e", "role": "assistant", "content": "  "},
]


async def keep(
    memories: Memories, messages: list[Any], manager: dict[str, Any] | None = None, **body: Any
) -> dict[str, int]:
    result = await memories.extract(messages, manager_config=manager or VERBATIM, **body)
    found: dict[str, int] = result["counts"]
    return found


async def test_messages_become_items_with_their_place_in_the_thread(memories: Memories) -> None:
    result = await memories.extract(TALK, manager_config=VERBATIM, thread_id="t", position=10)
    assert result == {"counts": counts(inserted=3), "rejected": []}  # and no model
    rows = sorted(await memories.stored(), key=lambda row: row["position"])
    assert [json.loads(row["value"]) for row in rows] == [
        {"kind": "message", "content": {"role": "user", "text": "Hello!"}},
        {"kind": "message", "content": {"role": "assistant", "text": "Hi Ana.", "name": "Bot"}},
        {"kind": "message", "content": {"role": "user", "text": "[image]\nLook"}},
    ]
    assert [(row["thread_id"], row["position"]) for row in rows] == [
        ("t", 11),
        ("t", 12),
        ("t", 13),
    ]
    said = datetime(2026, 5, 3, 10, tzinfo=UTC)
    assert [(row["said_first"], row["said_last"]) for row in rows] == [
        (said, said),
        (None, None),
        (None, None),
    ]
    assert [row["source_class"] for row in rows] == ["user", "assistant", "user"]
    assert [json.loads(row["source"])["message_ids"] for row in rows] == [["b"], ["c"], ["d"]]
    assert memories.model.requests == []


@pytest.mark.parametrize(
    "body", [{}, {"thread_id": "t"}, {"thread_id": "t", "position": 3}, {"position": 3}]
)
@pytest.mark.parametrize("with_ids", [True, False])
async def test_a_longer_conversation_adds_only_its_new_messages(
    memories: Memories, with_ids: bool, body: dict[str, Any]
) -> None:
    talk = TALK if with_ids else [{**message, "id": None} for message in TALK]
    assert await keep(memories, talk, **body) == counts(inserted=3)
    more = [*talk, {"role": "user", "content": "Hello!"}]
    assert await keep(memories, more, **body) == counts(inserted=1, unchanged=3)
    assert await keep(memories, more, **body) == counts(unchanged=4)
    assert len(await memories.stored()) == 4


async def test_different_messages_are_kept_apart(memories: Memories) -> None:
    assert await keep(memories, [["user", "yes"], ["user", "yes"]]) == counts(inserted=2)
    assert await keep(memories, TALK, thread_id="t") == counts(inserted=3)
    positions = [row["position"] for row in await memories.stored() if row["thread_id"]]
    assert sorted(positions) == [1, 2, 3]  # a thread begins with the first message
    assert await keep(memories, TALK, thread_id="u") == counts(inserted=3)
    for text in ("Hello", "Good bye"):  # without a thread an id identifies nothing
        message = {"id": "1", "role": "user", "content": text}
        assert await keep(memories, [message]) == counts(inserted=1)


async def test_an_edited_message_of_a_thread_is_updated(memories: Memories) -> None:
    await keep(memories, TALK, thread_id="t")
    edited = [{**TALK[1], "content": "Hello, Bot!"}]
    assert await keep(memories, edited, thread_id="t") == counts(updated=1)
    values = [json.loads(row["value"])["content"] for row in await memories.stored()]
    assert {"role": "user", "text": "Hello, Bot!"} in values
    assert len(values) == 3


async def test_a_message_too_large_to_store_is_rejected_alone(memories: Memories) -> None:
    messages = [["user", "Hello"], ["user", "\U0001f4dd" * 300_000]]
    result = await memories.extract(messages, manager_config=VERBATIM)
    assert result["counts"] == counts(inserted=1, rejected=1)
    assert "MEMORYD_MAX_VALUE_BYTES" in result["rejected"][0]["reason"]


async def test_messages_can_be_proposed_for_review(memories: Memories) -> None:
    job_id, result = await memories.extract_job(
        TALK, manager_config={**VERBATIM, "apply": "review"}
    )
    assert result["counts"] == counts()
    assert result["proposed"] == {"inserted": 3, "updated": 0, "deleted": 0}
    assert await memories.state(job_id) == State.AWAITING_REVIEW
    assert await memories.stored() == []


@pytest.mark.slow
async def test_one_conversation_sent_many_times_at_once_is_kept_once(memories: Memories) -> None:
    body: dict[str, Any] = {"manager_config": VERBATIM, "thread_id": "t"}
    jobs = [await memories.begin(TALK, **body) for _ in range(8)]

    async def work(number: int) -> None:
        await memories.run(jobs[number])

    await asyncio.wait_for(at_once(8, work), 60)
    assert len(await memories.stored()) == 3
    found = [(await memories.result(job.id))["counts"] for job in jobs]
    assert sum(one["inserted"] for one in found) == 3
    assert sum(one["unchanged"] for one in found) == 21
