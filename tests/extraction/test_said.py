"""When memories were said, and by which class of sources."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.auth.access import ANONYMOUS
from tests.support.extraction import Memories, counts
from tests.support.scripted_model import calls, insert, update

TEA, GREEN = "Ana likes tea.", "Ana likes green tea."
AGAIN = ("update_memory", {"id": "m1", "message_ids": ["1"]})


def says(moment: str, text: str = "I like tea.", role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text, "created_at": moment}


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def said(memories: Memories, key: str) -> tuple[datetime | None, datetime | None]:
    row = await memories.get(key)
    return row["said_first"], row["said_last"]


async def only_key(memories: Memories) -> str:
    [key] = await memories.keys()
    return key


async def test_a_memory_was_said_when_its_messages_were(memories: Memories) -> None:
    memories.model.script.append(calls(insert(TEA, message_ids=["2", "3"]), insert("Hi.")))
    dates = ["2023-03-01", "2023-03-04", "2023-03-02", "2023-03-09"]
    await memories.extract([says(date) for date in dates])
    found = {row["value"]: row for row in await memories.stored()}
    [tea, hello] = [found[value] for value in sorted(found, key=lambda value: "Hi." in value)]
    assert (tea["said_first"], tea["said_last"]) == (day("2023-03-02"), day("2023-03-04"))
    # Of no message in particular, so of all of them.
    assert (hello["said_first"], hello["said_last"]) == (day("2023-03-01"), day("2023-03-09"))
    await memories.extract([says("2024-01-01")])
    shown = memories.model.prompt
    assert 'said="2023-03-02 to 2023-03-04"' in shown
    assert "changed=" not in shown


@pytest.mark.parametrize(
    "repeated",
    [
        insert("ana likes tea", message_ids=["1"]),
        AGAIN,
        update("m1", TEA, message_ids=["1"]),
    ],
)
async def test_what_is_said_again_moves_its_last_time_and_nothing_else(
    memories: Memories, repeated: Any
) -> None:
    memories.model.script.append(calls(insert(TEA, importance=0.5, message_ids=["1"])))
    await memories.extract([says("2023-03-01")])
    before = await memories.get(key := await only_key(memories))
    memories.advance_clock()
    for date, times in (
        ("2023-06-01", ("2023-03-01", "2023-06-01")),
        ("2022-06-01", ("2022-06-01", "2023-06-01")),  # brought in later, but said earlier
    ):
        memories.model.script.append(calls(repeated))
        assert (await memories.extract([says(date)]))["counts"] == counts(unchanged=1)
        assert await said(memories, key) == (day(times[0]), day(times[1]))
    after = await memories.get(key)
    unmoved = set(before.keys()) - {"said_first", "said_last"}
    assert {name: after[name] for name in unmoved} == {name: before[name] for name in unmoved}
    [version] = await memories.history(key)
    assert (version["said_first"], version["said_last"]) == await said(memories, key)


async def test_an_undo_keeps_when_the_earlier_text_was_said(memories: Memories) -> None:
    memories.model.script += [
        calls(insert(TEA, message_ids=["1"])),
        calls(AGAIN),
        calls(update("m1", GREEN, message_ids=["1"])),
    ]
    for date in ("2023-03-01", "2023-06-01"):
        await memories.extract([says(date)])
    job_id, _ = await memories.extract_job([says("2023-09-01")])
    key = await only_key(memories)
    assert await said(memories, key) == (day("2023-03-01"), day("2023-09-01"))
    await memories.undos.undo(ANONYMOUS, job_id)
    assert await memories.texts() == [TEA]
    assert await said(memories, key) == (day("2023-03-01"), day("2023-06-01"))


async def test_a_memory_has_the_lowest_class_of_its_sources(memories: Memories) -> None:
    roles = ("user", "assistant", "tool", "system")
    memories.model.script.append(calls(insert(TEA, message_ids=["1", "4"])))
    await memories.extract([says("2023-03-01", role=role) for role in roles])
    key = await only_key(memories)
    assert (await memories.get(key))["source_class"] == "user"
    for text, ids, expected in (
        (GREEN, ["2"], "assistant"),
        (TEA, ["1"], "assistant"),
        (GREEN, ["1", "3"], "tool"),
    ):
        memories.model.script.append(calls(update("m1", text, message_ids=ids)))
        await memories.extract([says("2023-03-02", role=role) for role in roles])
        assert (await memories.get(key))["source_class"] == expected


async def test_nothing_is_known_of_messages_without_a_time(memories: Memories) -> None:
    memories.model.script.append(calls(insert(TEA)))
    await memories.extract([["user", "I like tea."]])
    assert await said(memories, await only_key(memories)) == (None, None)
