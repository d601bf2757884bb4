"""What a model does with files, command by command."""

from typing import Any

from tests.support.app import Store
from tests.tools.memory_files import LISTED, NAMESPACE, Memory


async def test_a_file_is_created_viewed_and_kept_as_an_item(memory: Memory, store: Store) -> None:
    path = "/memories/tasks/notes.md"
    told = await memory("create", path=path, file_text="Meeting:\n- timeline\n")
    assert told == f"File created successfully at: {path}"
    item = await store.get(NAMESPACE, "tasks/notes.md")
    assert item["value"] == {"content": "Meeting:\n- timeline\n"}
    assert item["source"]["tool"] == "memory"
    assert await memory("view", path=path) == (
        f"Here's the content of {path} with line numbers:\n     1\tMeeting:\n     2\t- timeline"
    )
    assert (await memory("view", path=path, view_range=[2, -1])).endswith(":\n     2\t- timeline")
    [found] = await store.search(NAMESPACE, query="timeline")
    assert found["key"] == "tasks/notes.md"


async def test_memories_can_be_viewed_while_it_is_empty(memory: Memory) -> None:
    assert await memory("view", path="/memories") == LISTED.format("/memories") + "\n0B\t/memories"


async def test_a_directory_is_there_while_files_are_in_it(memory: Memory) -> None:
    await memory.write("/memories/a/b/c.md", "/memories/a/d.md", "/memories/e.md")
    assert await memory.listed() == [
        "/memories/a/",
        "/memories/a/b/",
        "/memories/a/d.md",
        "/memories/e.md",
    ]
    assert await memory.listed("/memories/a") == [
        "/memories/a/b/",
        "/memories/a/b/c.md",
        "/memories/a/d.md",
    ]
    assert await memory("view", path="/memories/a/b/") == (
        LISTED.format("/memories/a/b") + "\n4B\t/memories/a/b\n4B\t/memories/a/b/c.md"
    )
    await memory("delete", path="/memories/a/b/c.md")
    assert await memory.error("view", path="/memories/a/b") == (
        "The path /memories/a/b does not exist. Please provide a valid path."
    )


async def test_a_file_is_not_created_twice(memory: Memory) -> None:
    await memory.write("/memories/a.md")
    told = await memory.error("create", path="/memories/a.md", file_text="other")
    assert told == "Error: File /memories/a.md already exists"
    assert (await memory("view", path="/memories/a.md")).endswith("\ttext")


async def test_files_and_directories_do_not_take_each_others_place(memory: Memory) -> None:
    await memory.write("/memories/file", "/memories/dir/below/x")
    create = {"file_text": "text"}
    below = await memory.error("create", path="/memories/file/x/y", **create)
    assert below == "Error: /memories/file is a file; there can be nothing below it"
    for path in ("/memories/dir", "/memories/dir/below"):
        assert await memory.error("create", path=path, **create) == (
            f"Error: File {path} already exists"
        )
    for path in ("/memories", "/memories/new/"):
        assert "is a directory" in await memory.error("create", path=path, **create)
    assert await memory.listed() == [
        "/memories/dir/",
        "/memories/dir/below/",
        "/memories/file",
    ]


async def test_text_is_replaced_where_it_stands_once(memory: Memory, store: Store) -> None:
    path = "/memories/preferences.txt"
    await memory.write(path, text="Favorite color: blue\nFavorite food: ramen\n")
    replace = {"path": path, "old_str": "color: blue", "new_str": "color: green"}
    assert await memory("str_replace", **replace) == (
        "The memory file has been edited. Here is the snippet showing the change (with line "
        "numbers):\n     1\tFavorite color: green\n     2\tFavorite food: ramen"
    )
    assert await memory.error("str_replace", **replace) == (
        f"No replacement was performed, old_str `color: blue` did not appear verbatim in {path}."
    )
    assert await memory.error("str_replace", path=path, old_str="Favorite", new_str="") == (
        "No replacement was performed. Multiple occurrences of old_str `Favorite` in lines: "
        "1, 2. Please ensure it is unique"
    )
    [newest, _] = await store.versions(NAMESPACE, "preferences.txt")
    assert newest["value"] == {"content": "Favorite color: green\nFavorite food: ramen\n"}
    assert newest["action"] == "patch"


async def test_lines_are_inserted(memory: Memory) -> None:
    path = "/memories/todo.txt"
    await memory.write(path, text="one\nthree\n")
    insert = {"path": path, "insert_text": "two\n"}
    assert await memory("insert", insert_line=1, **insert) == f"The file {path} has been edited."
    assert (await memory("view", path=path)).endswith("     1\tone\n     2\ttwo\n     3\tthree")
    assert await memory.error("insert", insert_line=4, **insert) == (
        "Error: Invalid `insert_line` parameter: 4. "
        "It should be within the range of lines of the file: [0, 3]"
    )


async def test_only_files_that_are_there_are_edited(memory: Memory) -> None:
    await memory.write("/memories/dir/x")
    for path in ("/memories/dir", "/memories/none.md"):
        told = f"Error: The path {path} does not exist. Please provide a valid path."
        replace = {"path": path, "old_str": "a", "new_str": "b"}
        assert await memory.error("str_replace", **replace) == told
        insert = {"path": path, "insert_line": 0, "insert_text": "b"}
        assert await memory.error("insert", **insert) == told


async def test_an_edit_keeps_all_but_the_text(memory: Memory, store: Store) -> None:
    details: dict[str, Any] = {
        "importance": 0.7,
        "pinned": True,
        "ttl_seconds": 600,
        "index": ["kind"],
    }
    await store.put(NAMESPACE, "m", {"kind": "note", "content": "old"}, **details)
    await memory("str_replace", path="/memories/m", old_str="old", new_str="new")
    item = await store.get(NAMESPACE, "m")
    assert item["value"] == {"kind": "note", "content": "new"}
    assert (item["importance"], item["pinned"]) == (0.7, True)
    assert item["expires_at"] is not None
    assert await store.search(NAMESPACE, query="new", mode="text") == []


async def test_a_file_and_a_directory_are_deleted(memory: Memory, store: Store) -> None:
    await memory.write("/memories/a/b/c", "/memories/a/d", "/memories/a.md", "/memories/ab/e")
    deleted = await memory("delete", path="/memories/a.md")
    assert deleted == "Successfully deleted /memories/a.md"
    assert await memory("delete", path="/memories/a/") == "Successfully deleted /memories/a/"
    assert await memory.listed() == ["/memories/ab/", "/memories/ab/e"]
    assert await memory.error("delete", path="/memories/a") == (
        "Error: The path /memories/a does not exist"
    )
    told = await memory.error("delete", path="/memories")
    assert told == "Cannot delete the /memories directory itself"
    [newest, _] = await store.versions(NAMESPACE, "a/d")
    assert newest["action"] == "delete"


async def test_a_file_is_renamed_with_all_that_it_has(memory: Memory, store: Store) -> None:
    details: dict[str, Any] = {
        "importance": 0.7,
        "pinned": True,
        "ttl_seconds": 600,
        "source": {"n": 1},
    }
    await store.put(NAMESPACE, "draft.txt", {"kind": "note", "content": "ramen"}, **details)
    rename = {"old_path": "/memories/draft.txt", "new_path": "/memories/done/final.txt"}
    assert await memory("rename", **rename) == (
        "Successfully renamed /memories/draft.txt to /memories/done/final.txt"
    )
    assert await store.get(NAMESPACE, "draft.txt") is None
    [item] = await store.search(NAMESPACE, query="ramen")
    assert item["key"] == "done/final.txt"
    assert item["value"] == {"kind": "note", "content": "ramen"}
    assert (item["importance"], item["pinned"], item["source"]) == (0.7, True, {"n": 1})
    assert item["expires_at"] is not None


async def test_a_directory_is_renamed_with_all_that_is_in_it(memory: Memory) -> None:
    await memory.write("/memories/a/b/c", "/memories/a/d", "/memories/ab")
    await memory("rename", old_path="/memories/a", new_path="/memories/x/y")
    assert await memory.listed() == ["/memories/ab", "/memories/x/", "/memories/x/y/"]
    assert await memory.listed("/memories/x/y") == [
        "/memories/x/y/b/",
        "/memories/x/y/b/c",
        "/memories/x/y/d",
    ]


async def test_nothing_is_renamed_onto_or_into_something(memory: Memory) -> None:
    paths = ["/memories/a/b/c", "/memories/f", "/memories/g"]
    await memory.write(*paths)
    exists = "Error: The destination {} already exists"
    cases = [
        ("/memories/f", "/memories/g", exists.format("/memories/g")),
        ("/memories/f", "/memories/f", exists.format("/memories/f")),
        ("/memories/f", "/memories/a", exists.format("/memories/a")),
        ("/memories/a/b", "/memories/a", exists.format("/memories/a")),
        ("/memories/a", "/memories/f", exists.format("/memories/f")),
        ("/memories/a", "/memories/a/x", "Error: /memories/a cannot be moved into itself"),
        ("/memories/f", "/memories/f/x", "Error: /memories/f cannot be moved into itself"),
        (
            "/memories/f",
            "/memories/g/x",
            "Error: /memories/g is a file; there can be nothing below it",
        ),
        ("/memories/none", "/memories/x", "Error: The path /memories/none does not exist"),
        ("/memories", "/memories/x", "Cannot rename the /memories directory itself"),
        ("/memories/f", "/memories", "Cannot rename the /memories directory itself"),
    ]
    for old, new, told in cases:
        assert await memory.error("rename", old_path=old, new_path=new) == told
    assert await memory.listed() == [
        "/memories/a/",
        "/memories/a/b/",
        "/memories/f",
        "/memories/g",
    ]
