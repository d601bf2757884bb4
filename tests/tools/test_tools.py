"""Definitions of tools, and mistakes of the application."""

import json
import re
from typing import Any

import mcp.types
import pytest
from anthropic.types import ToolParam
from jsonschema_rs import Draft202012Validator, meta
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import TypeAdapter

from app.auth.access import Verb
from tests.support.app import Store
from tests.tools.agent import HOME, JSON, Agent, AgentWith

pytestmark = pytest.mark.slow

TRIP: JSON = {
    "name": "trip",
    "description": "A journey.",
    "schema": {
        "type": "object",
        "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}}},
        "required": ["stops"],
        "$defs": {"stop": {"type": "object", "properties": {"city": {"type": "string"}}}},
    },
}

SDK_TYPES: dict[str, tuple[Any, str]] = {
    "openai": (ChatCompletionFunctionToolParam, "parameters"),
    "openai_responses": (FunctionToolParam, "parameters"),
    "anthropic": (ToolParam, "input_schema"),
    "mcp": (mcp.types.Tool, "inputSchema"),
}
"""Each format's type in its SDK, and its name for a tool's parameters."""


def parameters_of(tools: list[JSON]) -> JSON:
    """Return the parameters of `manage_memory` from definitions in Anthropic's format."""
    (tool,) = (tool for tool in tools if tool["name"] == "manage_memory")
    parameters: JSON = tool["input_schema"]
    return parameters


@pytest.mark.parametrize("format_", SDK_TYPES)
async def test_definitions_are_what_the_sdks_take(agent: Agent, format_: str) -> None:
    sdk_type, parameters = SDK_TYPES[format_]
    query = {"format": format_, "names": "manage_memory,search_memory"}
    for kind in ({}, *({"kind": name} for name in ("memory", "profile", "episode", "triple"))):
        tools = await agent.tools(**query, **kind)
        assert len(tools) == 2
        for tool in tools:
            read = TypeAdapter(sdk_type).validate_python(tool)
            if format_ == "mcp":
                read = read.model_dump(by_alias=True, exclude_unset=True)
            assert read == tool  # the SDK knows every member
        manage = tools[0].get("function", tools[0])
        assert manage["name"] == "manage_memory"
        assert manage["description"].startswith("Create, update or delete a memory")
        meta.validate(manage[parameters])
        assert manage[parameters]["properties"].keys() == {"content", "action", "id"}


async def test_the_default_format_is_openai(agent: Agent) -> None:
    assert await agent.tools() == await agent.tools(format="openai")


@pytest.mark.parametrize(
    ("actions", "required", "default"),
    [
        ("create,update,delete", [], "create"),
        ("create", ["content"], "create"),
        ("delete,update", ["id"], "delete"),
        ("update", ["content", "id"], "update"),
    ],
)
async def test_arguments_that_every_action_needs_are_required(
    agent: Agent, actions: str, required: list[str], default: str
) -> None:
    parameters = parameters_of(await agent.tools(format="anthropic", actions_permitted=actions))
    assert parameters["required"] == required
    properties = parameters["properties"]
    assert properties["action"]["enum"] == actions.split(",")
    assert properties["action"]["default"] == default
    for name in ("content", "id"):
        assert properties[name]["type"] == "string"  # left out where it is not needed, never null


async def test_references_in_a_kinds_schema_resolve(agent: Agent, store: Store) -> None:
    config = {"kinds": [TRIP, {"name": "memory"}]}
    await store.call("PUT", "/v1/managers/trips", status=201, json=config)
    tools = await agent.tools(format="anthropic", manager="trips")
    validator = Draft202012Validator(parameters_of(tools))
    assert validator.is_valid({"content": {"stops": [{"city": "Rome"}]}})
    assert not validator.is_valid({"content": {"stops": [{"city": 3}]}})
    assert "A memory here is a trip: A journey." in tools[0]["description"]
    other = parameters_of(await agent.tools(format="anthropic", manager="trips", kind="memory"))
    assert Draft202012Validator(other).is_valid({"content": {"content": "Tea."}})


async def test_a_definition_accepts_what_calls_accept(agent: Agent) -> None:
    parameters = parameters_of(await agent.tools(format="anthropic", kind="triple"))
    validator = Draft202012Validator(parameters)
    fits = {"subject": "Ana", "predicate": "lives in", "object": "Turin"}
    for content in (fits, {**fits, "since": 2026}, {"subject": "Ana"}, "Ana lives in Turin"):
        answer = await agent.answer("manage_memory", {"content": content}, kind="triple")
        assert answer["is_error"] != validator.is_valid({"content": content})
    assert validator.is_valid({"action": "delete", "id": "x"})


@pytest.mark.parametrize(
    ("actions", "present", "absent"),
    [
        ("create", ["Create a memory", "send none"], ["send its id", "An update", "update it"]),
        ("update,delete", ["To update or delete one", "update it."], ["A new memory"]),
    ],
)
async def test_only_permitted_actions_are_described(
    agent: Agent, actions: str, present: list[str], absent: list[str]
) -> None:
    query = {"kind": "profile", "actions_permitted": actions, "instructions": "Be polite."}
    (tool,) = await agent.tools(format="mcp", names="manage_memory", **query)
    described = re.sub("A memory here is .*", "", tool["description"])
    assert [words for words in present if words not in described] == []
    assert [words for words in absent if words in described] == []
    assert described.endswith("Be polite.")  # instead of memoryd's instructions
    assert "of your own accord" not in described


@pytest.mark.parametrize(
    ("query", "example", "found"),
    [
        ({}, {"content": {"$contains": "tea"}}, "plain"),
        ({"kind": "memory"}, {"kind": "memory"}, "kept"),
    ],
)
async def test_the_example_of_a_filter_finds_such_memories(
    agent: Agent, store: Store, query: JSON, example: JSON, found: str
) -> None:
    await store.put(HOME, "plain", {"content": "Drinks tea."})
    await store.put(HOME, "kept", {"kind": "memory", "content": {"content": "Drinks tea."}})
    (tool,) = await agent.tools(format="mcp", names="search_memory", **query)
    described = tool["inputSchema"]["properties"]["filter"]["description"]
    assert described.endswith(f"like this: {json.dumps(example)}.")
    assert [item["key"] for item in await agent.search("tea", filter=example)] == [found]


@pytest.mark.parametrize(
    ("verbs", "actions"),
    [
        ({Verb.READ, Verb.WRITE}, ["create", "update"]),
        ({Verb.READ, Verb.DELETE}, ["delete"]),
        ({Verb.READ}, None),
    ],
)
async def test_actions_without_a_grant_are_not_offered(
    agent_with: AgentWith, verbs: set[Verb], actions: list[str] | None
) -> None:
    agent = await agent_with(verbs)
    for query in ({"namespace": json.dumps(HOME)}, {}):  # or granted anywhere
        tools = await agent.tools(format="anthropic", **query)
        names = {tool["name"] for tool in tools}
        assert "search_memory" in names
        assert ("manage_memory" in names) == (actions is not None)
        if actions:
            assert parameters_of(tools)["properties"]["action"]["enum"] == actions


async def test_unknown_tools_are_named(agent: Agent) -> None:
    assert await agent.problem("remember", {}) == (404, "tool_not_found")
    response = await agent.client.get("/v1/tools", params={"names": "search_memory,remember"})
    assert (response.status_code, response.json()["code"]) == (404, "tool_not_found")
    assert "manage_memory" in response.json()["detail"]


async def test_a_mistake_of_the_application_is_a_problem(agent: Agent) -> None:
    bindings: list[tuple[JSON, tuple[int, str]]] = [
        ({"variables": {}}, (422, "missing_variable")),
        ({"variables": {"user_id": "alice", "org": "acme"}}, (422, "unknown_variable")),
        ({"variables": {"user_id": ""}}, (422, "invalid_request")),
        ({"namespace": []}, (422, "invalid_request")),
        ({"namespace": ["langgraph", "x"]}, (422, "invalid_request")),
        ({"manager": "none"}, (404, "manager_not_found")),
        ({"kind": "haiku"}, (422, "invalid_request")),
        ({"actions_permitted": []}, (422, "invalid_request")),
        ({"query_model": "openai:scripted"}, (422, "invalid_request")),
        ({"user_id": "alice"}, (422, "invalid_request")),
    ]
    for binding, problem in bindings:
        for name in ("manage_memory", "search_memory"):
            arguments = {"content": "Tea.", "query": "tea"}
            assert await agent.problem(name, arguments, **dict(binding)) == problem, binding


async def test_a_bad_query_for_definitions_is_a_problem(agent: Agent) -> None:
    for query in (
        {"format": "cohere"},
        {"actions_permitted": "create,read"},
        {"actions_permitted": ""},
        {"kind": "haiku"},
        {"names": "memory,memory"},
        {"colour": "red"},
    ):
        response = await agent.client.get("/v1/tools", params=query)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_a_keys_root_is_neither_seen_nor_left(agent_with: AgentWith) -> None:
    acme, globex = [await agent_with(Verb, root=(root,)) for root in ("acme", "globex")]
    key = await acme.create("Alice drinks tea.")
    assert [item["namespace"] for item in await acme.search("tea")] == [HOME]
    assert await globex.search("tea") == []
    for change in ({"action": "delete"}, {"content": "x", "action": "update"}):
        assert "no memory" in await globex.mistake({**change, "id": key})
    assert len(await acme.search("tea")) == 1
