"""Files are items: those of other writers, large ones, and expired ones."""

import json
from datetime import timedelta

import pytest

from app.clock import FrozenClock
from tests.support.app import Store
from tests.tools.memory_files import NAMESPACE, Memory, fill

pytestmark = pytest.mark.slow


async def test_items_without_text_are_shown_as_json_and_not_edited(
    memory: Memory, store: Store
) -> None:
    value = {"kind": "memory", "content": {"content": "Likes ramen, ラーメン"}}
    await store.put(NAMESPACE, "fact", value)
    _, *lines = (await memory("view", path="/memories/fact")).splitlines()
    assert json.loads("\n".join(line.partition("\t")[2] for line in lines)) == value
    error = await memory.error("insert", path="/memories/fact", insert_line=0, insert_text="x")
    assert error == "Error: /memories/fact holds data, not text; it can be viewed, but not edited."
    await memory("rename", old_path="/memories/fact", new_path="/memories/moved")
    await memory("delete", path="/memories/moved")
    assert await store.search(NAMESPACE) == []


async def test_keys_that_are_not_paths_are_not_listed(memory: Memory, store: Store) -> None:
    hidden = ("a//b", "../up", "tab\tbed", "", "/absolute", ".hidden", "a/.x/b", "node_modules/a")
    for key in (*hidden, "good", "my_node_modules/a.b"):
        await store.put(NAMESPACE, key, {"content": "text"})
    listed = ["/memories/good", "/memories/my_node_modules/", "/memories/my_node_modules/a.b"]
    assert await memory.listed() == listed


async def test_a_file_takes_precedence_over_a_directory_of_its_name(
    memory: Memory, store: Store
) -> None:
    for key in ("both", "both/below"):  # the tool itself never creates both
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
    error = await memory.error("rename", old_path="/memories/many", new_path="/memories/x")
    assert "has more than 1,000 files" in error
    await memory("delete", path="/memories/many")
    assert await memory.listed() == []


async def test_renames_are_limited_by_bytes_and_length(memory: Memory, store: Store) -> None:
    for key in ("big/1", "big/2"):
        await store.put(NAMESPACE, key, {"content": "x" * 600_000}, index=False)
    error = await memory.error("rename", old_path="/memories/big", new_path="/memories/x")
    assert "1,048,576 bytes" in error
    await memory("rename", old_path="/memories/big/1", new_path="/memories/x/1")
    long = "/memories/a/" + "k" * 500
    await memory.write(long)
    error = await memory.error("rename", old_path="/memories/a", new_path="/memories/" + "d" * 20)
    assert error.endswith("would be too long a path")
    assert await memory.listed("/memories/a") == [long]


async def test_expired_files_are_gone(memory: Memory, store: Store, clock: FrozenClock) -> None:
    for key in ("a", "b", "c", "dir/b"):
        await store.put(NAMESPACE, key, {"content": "text"}, ttl_seconds=60)
    clock.advance(timedelta(minutes=2))
    assert await memory.listed() == []
    assert "does not exist" in await memory.error("view", path="/memories/a")
    assert "does not exist" in await memory.error("delete", path="/memories/dir")
    await memory.write("/memories/a/now", "/memories/dir", "/memories/b")
    await memory("rename", old_path="/memories/b", new_path="/memories/c")
    paths = [f"/memories/{name}" for name in ("a/", "a/now", "c", "dir")]
    assert await memory.listed() == paths
