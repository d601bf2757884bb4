"""How the memory tool is offered, and which calls it refuses."""

from typing import Any

import pytest

from app.auth.access import Verb
from app.config import Settings
from app.tools.memory_files import NAME
from tests.tools.agent import Agent, AgentWith
from tests.tools.memory_files import NAMESPACE, Memory

COMMANDS = ["view", "create", "str_replace", "insert", "delete", "rename"]
PATH = {"path": "/memories/a"}
CALLS: list[tuple[dict[str, Any], set[Verb]]] = [
    ({"command": "view", **PATH}, {Verb.READ}),
    ({"command": "create", "path": "/memories/b", "file_text": "x"}, {Verb.READ, Verb.WRITE}),
    (
        {"command": "str_replace", **PATH, "old_str": "text", "new_str": "x"},
        {Verb.READ, Verb.WRITE},
    ),
    ({"command": "insert", **PATH, "insert_line": 0, "insert_text": "x"}, {Verb.READ, Verb.WRITE}),
    (
        {"command": "rename", "old_path": "/memories/a", "new_path": "/memories/c"},
        {Verb.READ, Verb.WRITE, Verb.DELETE},
    ),
    ({"command": "delete", "path": "/memories/c"}, {Verb.READ, Verb.DELETE}),
]
"""A call of each command, and the verbs it needs; each succeeds after those before it."""


async def test_the_definition_is_anthropics_own_or_a_function(agent: Agent) -> None:
    async def defined(**query: str) -> dict[str, Any]:
        [tool] = await agent.tools(names=NAME, **query)
        return tool

    assert await defined(format="anthropic") == {"type": "memory_20250818", "name": "memory"}
    function = (await defined(format="openai"))["function"]
    assert function["name"] == "memory"
    properties = function["parameters"]["properties"]
    assert properties["command"]["enum"] == COMMANDS
    assert properties.keys() == {name for arguments, _ in CALLS for name in arguments} | {
        "view_range"
    }
    described = await defined(format="mcp", actions_permitted="create")
    properties = described["inputSchema"]["properties"]
    assert properties["command"]["enum"] == ["view", "create"]
    assert properties.keys() == {"command", "path", "view_range", "file_text"}
    assert "rename" not in described["description"]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "Error: command is null; it must be view, create, str_replace, insert, delete or re"),
    ({"command": ["view"]}, 'Error: command is ["view"]; it must be view, create,'),
    ({"command": "view", "path": 7}, "Error: path: This is not a string; send one."),
    (
        {"command": "view", **PATH, "view_range": ["one", 2]},
        "Error: view_range[0]: This is not a number; send one, without quotes.",
    ),
    ({"command": "view", **PATH, "view_range": [1]}, "Error: view_range: "),
    (
        {"command": "create"},
        "Error: path: The field is missing; add it. file_text: The field is missing; add it.",
    ),
    (
        {"command": "create", **PATH, "file_text": "a\0"},
        "Nothing was done: arguments.file_text contains U+0000, which cannot be stored; leave it",
    ),
]


async def test_mistakes_in_arguments_are_explained_to_the_model(
    agent: Agent, memory: Memory
) -> None:
    for arguments, error in MISTAKES:
        assert (await agent.mistake(arguments, name=NAME)).startswith(error)
    of_others = {"view_range": None, "file_text": None, "old_str": None, "insert_line": None}
    await memory("view", path="/memories", **of_others)


async def test_a_text_that_is_too_large_is_explained_to_the_model(
    memory: Memory, settings: Settings
) -> None:
    text = "x" * settings.max_value_bytes
    error = await memory.error("create", path="/memories/a", file_text=text)
    assert error.startswith("Error: The file would be too large; nothing was written.")
    assert await memory.listed() == []


async def test_commands_that_are_not_permitted_are_refused(agent: Agent) -> None:
    await Memory(agent).write("/memories/a")
    memory = Memory(agent, actions_permitted=["create"])
    for arguments, _ in CALLS:
        if arguments["command"] in ("view", "create"):
            await memory(**arguments)
        else:
            error = await memory.error(**arguments)
            assert error.endswith("; it must be view or create.")
    assert await memory.listed() == ["/memories/a", "/memories/b"]


@pytest.mark.slow
async def test_each_command_needs_its_grants(agent_with: AgentWith) -> None:
    await Memory(await agent_with(Verb, NAMESPACE)).write("/memories/a")
    for arguments, needed in CALLS:
        for verb in needed:
            agent = await agent_with(set(Verb) - {verb}, NAMESPACE)
            problem = await agent.problem(NAME, arguments, namespace=NAMESPACE)
            assert problem == (403, "forbidden")
        await Memory(await agent_with(needed, NAMESPACE))(**arguments)
