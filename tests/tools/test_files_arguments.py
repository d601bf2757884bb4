"""How the memory tool is offered, and what calls and keys it refuses."""

from typing import Any

import httpx2
import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from app.config import Settings
from app.tools.files.tool import NAME
from tests.tools.agent import Agent
from tests.tools.memory_files import NAMESPACE, Memory


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
    ({"command": "create", "path": "/memories/b", "file_text": "x"}, {Verb.READ, Verb.WRITE}),
    (
        {"command": "str_replace", "path": "/memories/a", "old_str": "text", "new_str": "x"},
        {Verb.READ, Verb.WRITE},
    ),
    (
        {"command": "insert", "path": "/memories/a", "insert_line": 0, "insert_text": "x"},
        {Verb.READ, Verb.WRITE},
    ),
    (
        {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/c"},
        {Verb.READ, Verb.WRITE, Verb.DELETE},
    ),
    ({"command": "delete", "path": "/memories/c"}, {Verb.READ, Verb.DELETE}),
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
