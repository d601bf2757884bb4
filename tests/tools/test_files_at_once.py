"""Models that change the same files at once."""

import asyncio
from collections.abc import Sequence

import pytest

from app.db.optimistic import OvertakenError, TooManyConflictsError, retry_optimistically
from app.tools.files.tool import NAME
from tests.support.app import Store
from tests.tools.agent import Agent
from tests.tools.memory_files import NAMESPACE, Memory


async def test_inserts_at_once_lose_nothing(memory: Memory) -> None:
    path = "/memories/log"
    await memory.write(path, text="")

    async def insert(number: int) -> None:
        await memory("insert", path=path, insert_line=0, insert_text=f"line {number}")

    await asyncio.gather(*(insert(number) for number in range(8)))
    lines = (await memory("view", path=path)).splitlines()[1:]
    assert sorted(line.partition("\t")[2] for line in lines) == [f"line {n}" for n in range(8)]


async def test_of_those_who_create_the_same_at_once_one_succeeds(agent: Agent) -> None:
    create = {"command": "create", "file_text": "text"}
    paths = ["/memories/{}", "/memories/{}", "/memories/{}/y", "/memories/{}/y/z"]
    for attempt in range(5):
        answers = await asyncio.gather(
            *(
                agent.answer(NAME, {**create, "path": path.format(attempt)}, namespace=NAMESPACE)
                for path in paths
            )
        )
        assert [answer["is_error"] for answer in answers].count(False) == 1


async def test_a_directory_that_is_written_to_while_it_is_renamed_loses_nothing(
    memory: Memory, store: Store
) -> None:
    async def write(names: Sequence[str]) -> None:
        for name in names:
            await memory("create", path=f"/memories/old/{name}", file_text=name)

    await write(["1", "2", "3"])
    rename = {"old_path": "/memories/old", "new_path": "/memories/new"}
    await asyncio.gather(write(["4", "5", "6"]), memory("rename", **rename))
    moved = {path.rpartition("/")[2] for path in await memory.listed("/memories/new")}
    assert {"1", "2", "3"} <= moved
    every = {item["key"].partition("/")[2] for item in await store.search(NAMESPACE, limit=100)}
    assert every == {"1", "2", "3", "4", "5", "6"}


async def test_a_change_that_others_always_overtake_is_given_up() -> None:
    attempts = []

    async def attempt() -> None:
        attempts.append(1)
        raise OvertakenError

    with pytest.raises(TooManyConflictsError):
        await retry_optimistically(attempt)
    assert len(attempts) == 20
