"""Definitions of tools, and what an application may say wrong."""

import json
import re
from typing import Any

import httpx2
import mcp.types
import pytest
from anthropic.types import ToolParam
from jsonschema_rs import Draft202012Validator, meta
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import TypeAdapter

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.tools.tool import ACTIONS
from tests.support.app import Store
from tests.tools.agent import HOME, JSON, Agent

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

OF_THE_SDKS: dict[str, Any] = {
    "openai": ChatCompletionFunctionToolParam,
    "openai_responses": FunctionToolParam,
    "anthropic": ToolParam,
    "mcp": mcp.types.Tool,
}


def parameters_of(tools: list[JSON], name: str = "manage_memory") -> JSON:
    """Return a tool's parameters from definitions in Anthropic's form."""
    parameters: JSON = next(tool for tool in tools if tool["name"] == name)["input_schema"]
    return parameters


@pytest.mark.parametrize("form", OF_THE_SDKS)
@pytest.mark.parametrize("kind", [None, "memory", "profile", "episode", "triple"])
async def test_definitions_are_what_the_sdks_take(
    agent: Agent, form: str, kind: str | None
) -> None:
    query = {"format": form, "names": "manage_memory,search_memory"}
    tools = await agent.tools(**query, **({} if kind is None else {"kind": kind}))
    assert len(tools) == 2
    for tool in tools:
        read = TypeAdapter(OF_THE_SDKS[form]).validate_python(tool)
        if form == "mcp":
            read = read.model_dump(by_alias=True, exclude_unset=True)
        assert read == tool  # nothing is unknown to the SDK


@pytest.mark.parametrize("form", ["openai", "openai_responses", "anthropic", "mcp"])
async def test_all_forms_say_the_same(agent: Agent, form: str) -> None:
    for tool in await agent.tools(format=form, names="manage_memory"):
        function = tool.get("function", tool)
        (schema,) = (
            function[name]
            for name in ("parameters", "input_schema", "inputSchema")
            if name in function
        )
        assert function["name"] == "manage_memory"
        assert function["description"].startswith("Create, update or delete a memory")
        assert schema["properties"].keys() == {"content", "action", "id"}


async def test_the_default_form_is_openais(agent: Agent) -> None:
    assert await agent.tools() == await agent.tools(format="openai")


@pytest.mark.parametrize(
    ("actions", "required", "default"),
    [
        ("create,update,delete", [], "create"),
        ("create,update", ["content"], "create"),
        ("create", ["content"], "create"),
        ("update,delete", ["id"], "update"),
        ("delete,update", ["id"], "delete"),
        ("delete", ["id"], "delete"),
        ("update", ["content", "id"], "update"),
        ("create,delete", [], "create"),
    ],
)
async def test_what_every_action_needs_is_required(
    agent: Agent, actions: str, required: list[str], default: str
) -> None:
    tools = await agent.tools(format="anthropic", actions_permitted=actions)
    parameters = parameters_of(tools)
    assert parameters["required"] == required
    properties = parameters["properties"]
    assert properties["action"]["enum"] == actions.split(",")
    assert properties["action"]["default"] == default
    for name in ("content", "id"):
        may_be_null = Draft202012Validator(properties[name]).is_valid(None)
        assert may_be_null == (name not in required)


@pytest.mark.parametrize("kind", ["memory", "profile", "episode", "triple"])
async def test_the_content_is_what_the_kind_says(agent: Agent, kind: str) -> None:
    parameters = parameters_of(await agent.tools(format="anthropic", kind=kind))
    meta.validate(parameters)
    validator = Draft202012Validator(parameters)
    assert validator.is_valid({"action": "delete", "id": "x"})
    assert not validator.is_valid({"content": "text"})


async def test_references_of_a_kind_are_found_where_they_point_to(
    agent: Agent, store: Store
) -> None:
    config = {"kinds": [TRIP, {"name": "memory"}]}
    await store.call("PUT", "/v1/managers/trips", status=201, json=config)
    tools = await agent.tools(format="anthropic", manager="trips")
    validator = Draft202012Validator(parameters_of(tools))
    assert validator.is_valid({"content": {"stops": [{"city": "Rome"}]}})
    assert not validator.is_valid({"content": {"stops": [{"city": 3}]}})
    assert "A memory here is a trip: A journey." in tools[0]["description"]
    other = parameters_of(await agent.tools(format="anthropic", manager="trips", kind="memory"))
    assert Draft202012Validator(other).is_valid({"content": {"content": "Tea."}})


async def test_a_definition_and_the_calls_agree_on_what_fits(agent: Agent, store: Store) -> None:
    validator = Draft202012Validator(
        parameters_of(await agent.tools(format="anthropic", kind="triple"))
    )
    fits = {"subject": "Ana", "predicate": "lives in", "object": "Turin"}
    for content in (fits, {**fits, "since": 2026}, {"subject": "Ana"}, "Ana lives in Turin"):
        answer = await agent.answer("manage_memory", {"content": content}, kind="triple")
        assert answer["is_error"] != validator.is_valid({"content": content})


@pytest.mark.parametrize(
    ("actions", "said", "unsaid"),
    [
        ("create", ["Create a memory", "send none"], ["send its id", "An update", "update it"]),
        ("update", ["To update one", "An update replaces"], ["delete", "A new memory"]),
        ("delete", ["To delete one"], ["update", "A new memory"]),
        ("create,delete", ["To delete one", "only one profile."], ["An update", "update it"]),
        ("update,delete", ["To update or delete one", "update it."], ["A new memory"]),
    ],
)
async def test_only_what_may_be_done_is_described(
    agent: Agent, actions: str, said: list[str], unsaid: list[str]
) -> None:
    query = {"kind": "profile", "actions_permitted": actions, "instructions": "-"}
    (tool,) = await agent.tools(format="mcp", names="manage_memory", **query)
    described = re.sub("A memory here is .*", "", tool["description"])
    assert [words for words in said if words not in described] == []
    assert [words for words in unsaid if words in described] == []


@pytest.mark.parametrize(
    ("query", "example", "found"),
    [
        ({}, {"content": {"$contains": "tea"}}, "plain"),
        ({"kind": "memory"}, {"kind": "memory"}, "kept"),
    ],
)
async def test_the_filter_that_is_shown_finds_such_memories(
    agent: Agent, store: Store, query: JSON, example: JSON, found: str
) -> None:
    await store.put(HOME, "plain", {"content": "Drinks tea."})
    await store.put(HOME, "kept", {"kind": "memory", "content": {"content": "Drinks tea."}})
    (tool,) = await agent.tools(format="mcp", names="search_memory", **query)
    described = tool["inputSchema"]["properties"]["filter"]["description"]
    assert described.endswith(f"like this: {json.dumps(example)}.")
    assert [item["key"] for item in await agent.finds("tea", filter=example)] == [found]


async def test_instructions_replace_memoryds(agent: Agent) -> None:
    own = "Remember what the user eats."
    tool = (await agent.tools(format="mcp", instructions=own))[0]
    assert tool["description"].endswith(own)
    assert "of your own accord" not in tool["description"]


@pytest.mark.parametrize(
    ("verbs", "actions"),
    [
        ({Verb.READ, Verb.WRITE, Verb.DELETE}, ["create", "update", "delete"]),
        ({Verb.READ, Verb.WRITE}, ["create", "update"]),
        ({Verb.READ, Verb.DELETE}, ["delete"]),
        ({Verb.READ}, None),
    ],
)
async def test_what_a_key_may_not_do_is_not_offered(
    client: httpx2.AsyncClient, keys: KeyService, verbs: set[Verb], actions: list[str] | None
) -> None:
    grants = (Grant(tuple(HOME), frozenset(verbs)), Grant(("other",), frozenset(Verb)))
    token = await keys.create("agent", root=(), grants=grants, expires_at=None)
    agent = Agent(client, {"x-api-key": str(token)})
    tools = await agent.tools(format="anthropic", namespace=json.dumps(HOME))
    offered = {tool["name"]: tool for tool in tools}
    assert "search_memory" in offered
    if actions is None:
        assert "manage_memory" not in offered
    else:
        assert parameters_of(tools)["properties"]["action"]["enum"] == actions
    anywhere = parameters_of(await agent.tools(format="anthropic"))
    assert anywhere["properties"]["action"]["enum"] == list(ACTIONS)


async def test_tools_that_are_not_there_are_named(agent: Agent) -> None:
    assert await agent.problem("remember", {}) == (404, "tool_not_found")
    response = await agent.client.get("/v1/tools", params={"names": "search_memory,remember"})
    assert (response.status_code, response.json()["code"]) == (404, "tool_not_found")
    assert "manage_memory" in response.json()["detail"]


@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ({"variables": {}}, (422, "missing_variable")),
        ({"variables": {"user_id": "alice", "org": "acme"}}, (422, "unknown_variable")),
        ({"variables": {"user_id": ""}}, (422, "invalid_request")),
        ({"namespace": ["user-{id}"]}, (422, "missing_variable")),
        ({"namespace": []}, (422, "invalid_request")),
        ({"namespace": ["{a}{b}"]}, (422, "invalid_request")),
        ({"namespace": ["langgraph", "x"]}, (422, "invalid_request")),
        ({"manager": "none"}, (404, "manager_not_found")),
        ({"kind": "haiku"}, (422, "invalid_request")),
        ({"actions_permitted": []}, (422, "invalid_request")),
        ({"actions_permitted": ["create", "create"]}, (422, "invalid_request")),
        ({"actions_permitted": ["read"]}, (422, "invalid_request")),
        ({"query_model": "openai:scripted"}, (422, "invalid_request")),
        ({"user_id": "alice"}, (422, "invalid_request")),
    ],
)
async def test_what_the_application_says_wrong_is_a_problem(
    agent: Agent, binding: JSON, problem: tuple[int, str]
) -> None:
    for name in ("manage_memory", "search_memory"):
        arguments = {"content": "Tea.", "query": "tea"}
        assert await agent.problem(name, arguments, **binding) == problem


async def test_users_are_kept_apart(agent: Agent) -> None:
    await agent.creates("Alice drinks tea.", variables={"user_id": "alice"})
    bob: JSON = {"variables": {"user_id": "bob"}}
    assert await agent.does({"query": "tea"}, name="search_memory", **bob) == "[]"


async def test_a_keys_root_is_neither_seen_nor_left(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    async def agent_of(root: str) -> Agent:
        token = await keys.create("agent", root=(root,), grants=ALL_GRANTED, expires_at=None)
        return Agent(client, {"x-api-key": str(token)})

    acme, globex = await agent_of("acme"), await agent_of("globex")
    key = await acme.creates("Alice drinks tea.")
    assert [item["namespace"] for item in await acme.finds("tea")] == [HOME]
    assert await globex.finds("tea") == []
    assert "no memory" in await globex.errs({"action": "delete", "id": key})
    assert "no memory" in await globex.errs({"content": "x", "action": "update", "id": key})
    assert len(await acme.finds("tea")) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"format": "cohere"},
        {"actions_permitted": "create,read"},
        {"actions_permitted": ""},
        {"kind": "haiku"},
        {"names": "memory,memory"},
        {"colour": "red"},
    ],
)
async def test_a_query_that_makes_no_sense_is_a_problem(agent: Agent, query: JSON) -> None:
    response = await agent.client.get("/v1/tools", params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
