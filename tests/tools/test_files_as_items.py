"""Files are items: what other writers put, what is large, what has expired."""

import json
from datetime import timedelta

from app.clock import FrozenClock
from tests.support.app import Store
from tests.tools.memory_files import NAMESPACE, Memory, fill


async def test_items_without_text_are_shown_as_json_and_not_edited(
    memory: Memory, store: Store
) -> None:
    value = {"kind": "memory", "content": {"content": "Likes ramen, ラーメン"}}
    await store.put(NAMESPACE, "fact", value)
    first, *lines = (await memory("view", path="/memories/fact")).splitlines()
    assert json.loads("\n".join(line.partition("\t")[2] for line in lines)) == value
    assert first == "Here's the content of /memories/fact with line numbers:"
    told = await memory.error("insert", path="/memories/fact", insert_line=0, insert_text="x")
    assert told == "Error: /memories/fact holds data, not text; it can be viewed, but not edited."
    await memory("rename", old_path="/memories/fact", new_path="/memories/moved")
    await memory("delete", path="/memories/moved")
    assert await store.search(NAMESPACE) == []


async def test_keys_that_are_no_paths_are_not_listed(memory: Memory, store: Store) -> None:
    for key in ("a//b", "../up", "tab\tbed", "", "/absolute", "good", ".hidden"):
        await store.put(NAMESPACE, key, {"content": "text"})
    assert await memory.listed() == ["/memories/good"]


async def test_a_file_wins_over_a_directory_of_its_name(memory: Memory, store: Store) -> None:
    for key in ("both", "both/below"):  # the tool itself never lets it come to that
        await store.put(NAMESPACE, key, {"content": key})
    assert await memory.listed() == ["/memories/both", "/memories/both/", "/memories/both/below"]
    assert (await memory("view", path="/memories/both")).endswith("\tboth")
    await memory("delete", path="/memories/both")
    assert await memory.listed("/memories/both") == ["/memories/both/below"]


async def test_a_directory_of_thousands_is_cut(memory: Memory, store: Store) -> None:
    await fill(store, [f"many/{number:04}" for number in range(1_001)])
    lines = (await memory("view", path="/memories")).splitlines()
    assert len(lines) == 1 + 1 + 1 + 1_000 + 1
    assert lines[-2].endswith("/memories/many/0999")
    assert lines[-1].startswith("(There are more: only the first 1,000 files")
    told = await memory.error("rename", old_path="/memories/many", new_path="/memories/x")
    assert "has more than 1,000 files" in told
    await memory("delete", path="/memories/many")
    assert await memory.listed() == []


async def test_a_directory_of_much_text_is_not_renamed_at_once(
    memory: Memory, store: Store
) -> None:
    for key in ("big/1", "big/2"):
        await store.put(NAMESPACE, key, {"content": "x" * 600_000}, index=False)
    told = await memory.error("rename", old_path="/memories/big", new_path="/memories/x")
    assert "1,048,576 bytes" in told
    await memory("rename", old_path="/memories/big/1", new_path="/memories/x/1")


async def test_a_rename_that_makes_a_path_too_long_changes_nothing(memory: Memory) -> None:
    await memory.write("/memories/a/" + "k" * 500)
    told = await memory.error("rename", old_path="/memories/a", new_path="/memories/" + "d" * 20)
    assert told.endswith("would be too long a path")
    assert await memory.listed() == ["/memories/a/", "/memories/a/" + "k" * 500]


async def test_expired_files_are_gone(memory: Memory, store: Store, clock: FrozenClock) -> None:
    for key in ("a", "b", "c", "dir/b"):
        await store.put(NAMESPACE, key, {"content": "text"}, ttl_seconds=60)
    clock.advance(timedelta(minutes=2))
    assert await memory.listed() == []
    assert "does not exist" in await memory.error("view", path="/memories/a")
    assert "does not exist" in await memory.error("delete", path="/memories/dir")
    await memory.write("/memories/a/now", "/memories/dir", "/memories/b")
    await memory("rename", old_path="/memories/b", new_path="/memories/c")
    assert await memory.listed() == [
        "/memories/a/",
        "/memories/a/now",
        "/memories/c",
        "/memories/dir",
    ]
