"""What a model does with files, command by command, and at once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from app.tools.memory_files import NAME
from tests.support.app import Store
from tests.tools.agent import Agent
from tests.tools.memory_files import LISTED, NAMESPACE, Memory

DETAILS: dict[str, Any] = {"importance": 0.7, "pinned": True, "ttl_seconds": 600}


async def test_a_created_file_is_viewed_and_stored_as_an_item(memory: Memory, store: Store) -> None:
    path = "/memories/tasks/notes.md"
    result = await memory("create", path=path, file_text="Meeting:\n- timeline\n")
    assert result == f"File created successfully at: {path}"
    assert await memory("view", path=path) == (
        f"Here's the content of {path} with line numbers:\n     1\tMeeting:\n     2\t- timeline"
    )
    assert (await memory("view", path=path, view_range=[2, -1])).endswith(":\n     2\t- timeline")
    [found] = await store.search(NAMESPACE, query="timeline")
    assert (found["key"], found["source"]["tool"]) == ("tasks/notes.md", "memory")
    assert found["value"] == {"content": "Meeting:\n- timeline\n"}


async def test_a_directory_exists_while_files_are_in_it(memory: Memory) -> None:
    assert await memory("view", path="/memories") == LISTED.format("/memories") + "\n0B\t/memories"
    await memory.write("/memories/a/b/c.md", "/memories/a/d.md")
    assert await memory.listed() == ["/memories/a/", "/memories/a/b/", "/memories/a/d.md"]
    assert await memory("view", path="/memories/a/b/") == (
        LISTED.format("/memories/a/b") + "\n4B\t/memories/a/b\n4B\t/memories/a/b/c.md"
    )
    await memory("delete", path="/memories/a/b/c.md")
    assert await memory.error("view", path="/memories/a/b") == (
        "The path /memories/a/b does not exist. Please provide a valid path."
    )


async def test_nothing_is_created_where_something_is(memory: Memory) -> None:
    await memory.write("/memories/file", "/memories/dir/below/x")
    for path, error in {
        "/memories/file": "Error: File /memories/file already exists",
        "/memories/file/x/y": "Error: /memories/file is a file; there can be nothing below it",
        "/memories/dir": "Error: File /memories/dir already exists",
        "/memories/dir/below": "Error: File /memories/dir/below already exists",
    }.items():
        assert await memory.error("create", path=path, file_text="other") == error
    for path in ("/memories", "/memories/new/"):
        assert "is a directory" in await memory.error("create", path=path, file_text="text")
    assert await memory.listed() == ["/memories/dir/", "/memories/dir/below/", "/memories/file"]
    assert (await memory("view", path="/memories/file")).endswith("\ttext")


async def test_text_is_replaced_and_inserted(memory: Memory, store: Store) -> None:
    path = "/memories/todo.txt"
    await memory.write(path, text="one\nfour\n")
    assert await memory("str_replace", path=path, old_str="four", new_str="three") == (
        "The memory file has been edited. Here is the snippet showing the change (with line "
        "numbers):\n     1\tone\n     2\tthree"
    )
    result = await memory("insert", path=path, insert_line=1, insert_text="two\n")
    assert result == f"The file {path} has been edited."
    [newest, *_] = await store.versions(NAMESPACE, "todo.txt")
    assert newest["value"] == {"content": "one\ntwo\nthree\n"}
    assert newest["action"] == "patch"


async def test_arguments_may_be_null_or_json_text(memory: Memory, store: Store) -> None:
    path = "/memories/list.txt"
    await memory.write(path, text="one\r\ntwo\r\nthree")
    await memory("str_replace", path=path, old_str="two\n", new_str=None)
    await memory("insert", path=path, insert_line="2", insert_text="four")
    [newest, *_] = await store.versions(NAMESPACE, "list.txt")
    assert newest["value"] == {"content": "one\r\nthree\r\nfour\r\n"}
    shown = await memory("view", path=path, view_range="[2, 3]")
    assert shown.splitlines()[1:] == ["     2\tthree", "     3\tfour"]
    assert await memory("view", path=path, view_range="") == await memory("view", path=path)


async def test_an_edit_keeps_everything_but_the_text(memory: Memory, store: Store) -> None:
    await store.put(NAMESPACE, "m", {"kind": "note", "content": "old"}, index=["kind"], **DETAILS)
    await memory("str_replace", path="/memories/m", old_str="old", new_str="new")
    item = await store.get(NAMESPACE, "m")
    assert item["value"] == {"kind": "note", "content": "new"}
    assert (item["importance"], item["pinned"]) == (0.7, True)
    assert item["expires_at"] is not None
    assert await store.search(NAMESPACE, query="new", mode="text") == []


async def test_a_file_and_a_directory_are_deleted(memory: Memory, store: Store) -> None:
    await memory.write("/memories/a/b/c", "/memories/a/d", "/memories/a.md", "/memories/ab/e")
    for path in ("/memories/a.md", "/memories/a/"):
        assert await memory("delete", path=path) == f"Successfully deleted {path}"
    assert await memory.listed() == ["/memories/ab/", "/memories/ab/e"]
    assert await memory.error("delete", path="/memories/a") == (
        "Error: The path /memories/a does not exist"
    )
    error = await memory.error("delete", path="/memories")
    assert error == "Cannot delete the /memories directory itself"
    [newest, _] = await store.versions(NAMESPACE, "a/d")
    assert newest["action"] == "delete"


async def test_a_renamed_file_keeps_everything(memory: Memory, store: Store) -> None:
    value, details = {"kind": "note", "content": "ramen"}, {**DETAILS, "source": {"n": 1}}
    await store.put(NAMESPACE, "draft.txt", value, **details)
    rename = {"old_path": "/memories/draft.txt", "new_path": "/memories/done/final.txt"}
    assert await memory("rename", **rename) == (
        "Successfully renamed /memories/draft.txt to /memories/done/final.txt"
    )
    assert await store.get(NAMESPACE, "draft.txt") is None
    [item] = await store.search(NAMESPACE, query="ramen")
    assert (item["key"], item["value"]) == ("done/final.txt", value)
    assert (item["importance"], item["pinned"], item["source"]) == (0.7, True, {"n": 1})
    assert item["expires_at"] is not None


async def test_a_directory_is_renamed_with_everything_in_it(memory: Memory) -> None:
    await memory.write("/memories/a/b/c", "/memories/a/d", "/memories/ab")
    await memory("rename", old_path="/memories/a", new_path="/memories/x/y")
    assert await memory.listed() == ["/memories/ab", "/memories/x/", "/memories/x/y/"]
    assert await memory.listed("/memories/x/y") == [
        f"/memories/x/y/{name}" for name in ("b/", "b/c", "d")
    ]


@pytest.mark.slow
async def test_nothing_is_renamed_onto_or_into_something(memory: Memory) -> None:
    await memory.write("/memories/a/b/c", "/memories/f", "/memories/g")
    for old, new, error in (
        ("/f", "/g", "Error: The destination /memories/g already exists"),
        ("/f", "/f", "Error: The destination /memories/f already exists"),
        ("/f", "/a", "Error: The destination /memories/a already exists"),
        ("/a/b", "/a", "Error: The destination /memories/a already exists"),
        ("/a", "/f", "Error: The destination /memories/f already exists"),
        ("/a", "/a/x", "Error: /memories/a cannot be moved into itself"),
        ("/f", "/f/x", "Error: /memories/f cannot be moved into itself"),
        ("/f", "/g/x", "Error: /memories/g is a file; there can be nothing below it"),
        ("/none", "/x", "Error: The path /memories/none does not exist"),
        ("", "/x", "Cannot rename the /memories directory itself"),
        ("/f", "", "Cannot rename the /memories directory itself"),
    ):
        paths = {"old_path": f"/memories{old}", "new_path": f"/memories{new}"}
        assert await memory.error("rename", **paths) == error
    assert await memory.listed() == [f"/memories/{name}" for name in ("a/", "a/b/", "f", "g")]


@pytest.mark.slow
async def test_concurrent_inserts_lose_nothing(memory: Memory) -> None:
    path = "/memories/log"
    await memory.write(path, text="")

    async def insert(number: int) -> None:
        await memory("insert", path=path, insert_line=0, insert_text=f"line {number}")

    await asyncio.gather(*(insert(number) for number in range(8)))
    lines = (await memory("view", path=path)).splitlines()[1:]
    assert sorted(line.partition("\t")[2] for line in lines) == [f"line {n}" for n in range(8)]


@pytest.mark.slow
async def test_one_of_several_concurrent_creations_succeeds(agent: Agent) -> None:
    create = {"command": "create", "file_text": "text"}
    paths = ["/memories/x", "/memories/x", "/memories/x/y", "/memories/x/y/z"]
    answers = await asyncio.gather(
        *(agent.answer(NAME, {**create, "path": path}, namespace=NAMESPACE) for path in paths)
    )
    assert [answer["is_error"] for answer in answers].count(False) == 1


@pytest.mark.slow
async def test_renaming_a_directory_during_writes_loses_nothing(
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
