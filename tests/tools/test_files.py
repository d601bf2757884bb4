"""The memory tool over the store."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.config import Settings
from app.store.errors import TooManyConflictsError
from app.tools.files.definition import NAME
from app.tools.repeating import OvertakenError, repeated
from tests.support.app import Store
from tests.tools.calling import Agent

NAMESPACE = ["agents", "a1"]
LISTED = (
    "Here're the files and directories up to 2 levels deep in {}, "
    "excluding hidden items and node_modules:"
)


class Memory:
    """The tool as a model has it; the application names the namespace."""

    def __init__(self, agent: Agent, **binding: Any) -> None:
        self.agent = agent
        self.binding = {"namespace": NAMESPACE, **binding}

    async def __call__(self, command: str, **arguments: Any) -> str:
        arguments = {"command": command, **arguments}
        return await self.agent.does(arguments, name=NAME, **self.binding)

    async def error(self, command: str, **arguments: Any) -> str:
        arguments = {"command": command, **arguments}
        return await self.agent.errs(arguments, name=NAME, **self.binding)

    async def write(self, *paths: str, text: str = "text") -> None:
        for path in paths:
            await self("create", path=path, file_text=text)

    async def listed(self, path: str = "/memories") -> list[str]:
        """Return the listed paths without their sizes, the directory's own left out."""
        first, _, *lines = (await self("view", path=path)).splitlines()
        assert first == LISTED.format(path)
        return [line.partition("\t")[2] for line in lines]


@pytest.fixture
def memory(agent: Agent) -> Memory:
    return Memory(agent)


async def test_a_file_is_created_viewed_and_kept_as_an_item(memory: Memory, store: Store) -> None:
    path = "/memories/work/notes.md"
    told = await memory("create", path=path, file_text="Meeting:\n- timeline\n")
    assert told == f"File created successfully at: {path}"
    item = await store.get(NAMESPACE, "work/notes.md")
    assert item["value"] == {"content": "Meeting:\n- timeline\n"}
    assert item["source"]["tool"] == "memory"
    assert await memory("view", path=path) == (
        f"Here's the content of {path} with line numbers:\n     1\tMeeting:\n     2\t- timeline"
    )
    assert (await memory("view", path=path, view_range=[2, -1])).endswith(":\n     2\t- timeline")
    [found] = await store.search(NAMESPACE, query="timeline")
    assert found["key"] == "work/notes.md"


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


EVERY_COMMAND = "it must be view, create, str_replace, insert, delete or rename."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, f"Error: command is null; {EVERY_COMMAND}"),
        ({"command": "format"}, f'Error: command is "format"; {EVERY_COMMAND}'),
        ({"command": ["view"]}, f'Error: command is ["view"]; {EVERY_COMMAND}'),
        ({"command": "view"}, "Error: path: The field is missing; add it."),
        ({"command": "view", "path": 7}, "Error: path: This is not a string; send one."),
        (
            {"command": "view", "path": "/memories", "view_range": "1-2"},
            "Error: view_range: This is not a JSON array; send one.",
        ),
        (
            {"command": "view", "path": "/memories", "view_range": ["one", 2]},
            "Error: view_range[0]: This is not a number; send one, without quotes.",
        ),
        (
            {"command": "create"},
            "Error: path: The field is missing; add it. file_text: The field is missing; add it.",
        ),
        (
            {"command": "insert", "path": "/memories/a", "insert_text": "x"},
            "Error: insert_line: The field is missing; add it.",
        ),
        (
            {"command": "create", "path": "/memories/a", "file_text": "a\0"},
            "Nothing was done: arguments.file_text contains U+0000, which cannot be stored; "
            "leave it out.",
        ),
    ],
)
async def test_mistakes_in_arguments_are_told_to_the_model(
    agent: Agent, arguments: dict[str, Any], told: str
) -> None:
    assert await agent.errs(arguments, name=NAME) == told


@pytest.mark.parametrize("view_range", [[], [1], [1, 2, 3]])
async def test_a_range_has_two_lines(memory: Memory, view_range: list[int]) -> None:
    told = await memory.error("view", path="/memories", view_range=view_range)
    assert told.startswith("Error: view_range: List should have at ")


async def test_arguments_of_other_commands_may_be_null(memory: Memory) -> None:
    others = {"view_range": None, "file_text": None, "old_str": None, "insert_line": None}
    await memory("view", path="/memories", **others)


async def test_a_text_that_is_too_large_is_told_to_the_model(
    memory: Memory, settings: Settings
) -> None:
    text = "x" * settings.max_value_bytes
    told = await memory.error("create", path="/memories/a", file_text=text)
    assert told.startswith("Error: The file would be too large; nothing was written.")
    assert await memory.listed() == []


async def test_commands_that_are_not_permitted_are_refused(agent: Agent) -> None:
    await Memory(agent).write("/memories/a")
    memory = Memory(agent, actions_permitted=["create"])
    await memory.write("/memories/b")
    for command, arguments in (
        ("insert", {"path": "/memories/a", "insert_line": 0, "insert_text": "x"}),
        ("str_replace", {"path": "/memories/a", "old_str": "t", "new_str": "x"}),
        ("delete", {"path": "/memories/a"}),
        ("rename", {"old_path": "/memories/a", "new_path": "/memories/c"}),
    ):
        told = await memory.error(command, **arguments)
        assert told == f'Error: command is "{command}"; it must be view or create.'
    assert await memory.listed() == ["/memories/a", "/memories/b"]


COMMANDS: list[tuple[dict[str, Any], set[Verb]]] = [
    ({"command": "view", "path": "/memories/a"}, {Verb.READ}),
    ({"command": "create", "path": "/memories/b", "file_text": "x"}, {Verb.WRITE}),
    (
        {"command": "str_replace", "path": "/memories/a", "old_str": "text", "new_str": "x"},
        {Verb.WRITE},
    ),
    (
        {"command": "insert", "path": "/memories/a", "insert_line": 0, "insert_text": "x"},
        {Verb.WRITE},
    ),
    (
        {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/c"},
        {Verb.WRITE, Verb.DELETE},
    ),
    ({"command": "delete", "path": "/memories/c"}, {Verb.DELETE}),
]


async def test_each_command_needs_its_grants(client: httpx2.AsyncClient, keys: KeyService) -> None:
    async def holder(verbs: set[Verb]) -> Agent:
        grant = Grant(tuple(NAMESPACE), frozenset(verbs))
        token = await keys.create("key", root=[], grants=(grant,), expires_at=None)
        return Agent(client, {"x-api-key": str(token)})

    await Memory(await holder(set(Verb))).write("/memories/a")
    for arguments, needed in COMMANDS:
        for verb in needed:
            agent = await holder(set(Verb) - {verb})
            problem = await agent.problem(NAME, arguments, namespace=NAMESPACE)
            assert problem == (403, "forbidden")
        await Memory(await holder(needed))(**arguments)


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
        await repeated(attempt)
    assert len(attempts) == 20


async def test_the_definition_is_anthropics_own_or_a_function(agent: Agent) -> None:
    async def defined(**query: str) -> dict[str, Any]:
        [tool] = await agent.tools(names=NAME, **query)
        return tool

    assert await defined(format="anthropic") == {"type": "memory_20250818", "name": "memory"}
    function = (await defined(format="openai"))["function"]
    assert function["name"] == "memory"
    properties = function["parameters"]["properties"]
    assert properties["command"]["enum"] == [
        "view",
        "create",
        "str_replace",
        "insert",
        "delete",
        "rename",
    ]
    assert properties.keys() == {
        "command",
        "path",
        "view_range",
        "file_text",
        "old_str",
        "new_str",
        "insert_line",
        "insert_text",
        "old_path",
        "new_path",
    }
    described = await defined(format="mcp", actions_permitted="create")
    properties = described["inputSchema"]["properties"]
    assert properties["command"]["enum"] == ["view", "create"]
    assert properties.keys() == {"command", "path", "view_range", "file_text"}
    assert "rename" not in described["description"]


async def fill(store: Store, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), 1_000):
        await store.batch(
            *(
                {"op": "put", "namespace": NAMESPACE, "key": key, "value": {"content": "text"}}
                for key in keys[start : start + 1_000]
            )
        )
