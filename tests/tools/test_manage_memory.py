"""The tool `manage_memory`."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.access import Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.conversations.kinds import EPISODE
from tests.support.app import Store
from tests.support.keys import actor_of, key_with
from tests.tools.agent import HOME, JSON, Agent, AgentWith

pytestmark = pytest.mark.slow

TEA = "Alice drinks tea."
UPDATE: JSON = {"content": "Tea.", "action": "update", "id": "m"}
DELETE: JSON = {"action": "delete", "id": "m"}
PROFILE: JSON = {"kind": "profile", "content": {"name": "Alice"}}

CITY: JSON = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TRIP: JSON = {
    "name": "trip",
    "schema": {
        "type": "object",
        "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}}},
        "required": ["stops"],
        "$defs": {"stop": CITY},
    },
}


async def test_a_memory_is_created_found_updated_and_deleted(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    headers = await key_with(keys)
    agent, store = Agent(client, headers), Store(client, headers)
    key = await agent.create(TEA)
    assert str(UUID(key)) == key
    assert [item["key"] for item in await agent.search("tea")] == [key]
    assert await agent.call({**UPDATE, "id": key}) == f"updated memory {key}"
    assert await agent.call({"action": "delete", "id": key}) == f"Deleted memory {key}"
    assert await store.get(HOME, key) is None
    versions = await store.versions(HOME, key)
    assert [v["value"] for v in versions] == [None, {"content": "Tea."}, {"content": TEA}]
    assert [v["action"] for v in versions] == ["delete", "put", "put"]
    assert {v["source"]["tool"] for v in versions[1:]} == {"manage_memory"}
    assert {v["actor"] for v in versions} == {actor_of(headers)}


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps({"content": TEA, "action": "create", "id": None}),  # as OpenAI sends them
        {"content": TEA, "id": ""},
        {"content": TEA, "namespace": ["memories", "bob"], "user_id": "bob"},
    ],
)
async def test_arguments_are_read_leniently(agent: Agent, store: Store, arguments: Any) -> None:
    result = await agent.call(arguments)
    assert (await store.get(HOME, result.split()[-1]))["value"] == {"content": TEA}


MISTAKES: list[tuple[Any, str]] = [
    ({"content": TEA, "id": "x"}, "a new memory gets its id by itself"),
    ({}, "content is missing"),
    ({"content": " \n"}, "content is empty"),
    ({"content": {"text": TEA}}, 'content must be text, not {"text"'),
    ({"content": "a\u0000b"}, "arguments.content contains U+0000"),
    ({"content": "x" * 70_000}, "content is 70,000 bytes; at most 65,536 are kept"),
    ({"content": TEA, "action": "upsert"}, 'action is "upsert"; it must be create, update or'),
    ({"content": TEA, "action": "update"}, "to update a memory, send its id"),
    ({"content": TEA, "action": "update", "id": 3}, "id is 3; send the key that"),
    ({"content": TEA, "action": "update", "id": "x"}, 'no memory "x" in the namespace ["memo'),
    ({"action": "delete"}, "to delete a memory, send its id"),
    ({"action": "delete", "id": "x"}, "Use search_memory to find the one you mean"),
    ("{", "the arguments are not JSON but {. Send one JSON object"),
    ("[1]", "not a JSON object but [1]"),
    ('{"content": "' + "\\ud800" + '"}', "the arguments are not JSON"),
    ("[" * 100_000, "the arguments are not JSON"),
    ('{"content": ' + "9" * 5_000 + "}", "the arguments are not JSON"),
]


async def test_a_mistake_is_explained_to_the_model_and_writes_nothing(
    agent: Agent, store: Store
) -> None:
    for arguments, error in MISTAKES:
        assert error in await agent.mistake(arguments)
    assert await store.search([]) == []


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("notes/2026 ä.md", {"content": TEA, "kind": "note"}, {"content": "Tea."}),
        (
            "3",
            {"kind": "memory", "content": {"content": TEA}},
            {"kind": "memory", "content": {"content": "Tea."}},
        ),
    ],
)
async def test_an_update_replaces_the_text_and_keeps_the_form(
    agent: Agent, store: Store, key: str, before: JSON, after: JSON
) -> None:
    await store.put(HOME, key, before)
    await agent.call({**UPDATE, "id": key})
    assert (await store.get(HOME, key))["value"] == {**before, **after}


async def test_documents_of_other_forms_are_not_overwritten(agent: Agent, store: Store) -> None:
    values: list[JSON] = [
        {"name": "Alice", "plan": "pro"},
        {"content": {"name": "Alice"}, "plan": "pro"},
        {"kind": "customer", "content": {"name": "Alice"}},
        {"kind": 5, "content": {"name": "Alice"}},
    ]
    for value in values:
        await store.put(HOME, "m", value)
        for content, kind in ((TEA, None), ({"name": "Bob"}, "profile")):
            error = await agent.mistake({**UPDATE, "content": content}, kind=kind)
            assert error.startswith("Nothing was changed: memory m is ")
        assert (await store.get(HOME, "m"))["value"] == value


async def test_a_memory_keeps_its_kind(agent: Agent, store: Store) -> None:
    await store.put(HOME, "m", PROFILE)
    error = await agent.mistake(UPDATE)
    assert "memory m is of the kind profile, and this tool writes text" in error
    episode = dict.fromkeys(EPISODE.schema["required"], "x")
    error = await agent.mistake({**UPDATE, "content": episode}, kind="episode")
    assert "memory m is of the kind profile, and this tool writes the kind episode" in error
    assert (await store.get(HOME, "m"))["version"] == 1


async def test_a_memory_from_langmem_takes_the_kind(agent: Agent, store: Store) -> None:
    await store.put(HOME, "m", {"content": {"name": "Bob"}})
    await agent.call({**UPDATE, "content": PROFILE["content"]}, kind="profile")
    assert (await store.get(HOME, "m"))["value"] == PROFILE


async def test_an_update_keeps_everything_but_the_text(
    agent: Agent, store: Store, clock: FrozenClock
) -> None:
    details: JSON = {
        "importance": 0.9,
        "pinned": True,
        "valid_from": "2025-01-01T00:00:00Z",
        "ttl": 60,
        "index": ["content"],
    }
    await store.put(HOME, "m", {"content": TEA}, **details)
    before = await store.get(HOME, "m")
    clock.advance(timedelta(minutes=30))
    await agent.call(UPDATE)
    after = await store.get(HOME, "m")
    kept = ("importance", "pinned", "valid_from", "valid_to", "created_at")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["expires_at"] == "2026-01-01T13:30:00+00:00"


async def test_an_expired_memory_does_not_exist(
    agent: Agent, store: Store, clock: FrozenClock
) -> None:
    await store.put(HOME, "profile", PROFILE, ttl=1)
    clock.advance(timedelta(minutes=2))
    for change in (UPDATE, DELETE):
        assert "no memory" in await agent.mistake({**change, "id": "profile"})
    await agent.create({"name": "Bob"}, kind="profile")
    assert (await store.get(HOME, "profile"))["value"]["content"] == {"name": "Bob"}


async def test_memories_below_the_namespace_are_read_only(agent: Agent, store: Store) -> None:
    await store.put([*HOME, "work"], "m", {"content": TEA})
    for change in (UPDATE, DELETE):
        error = await agent.mistake(change)
        assert 'in the namespace ["memories", "alice"], and those of other' in error
    assert (await store.get([*HOME, "work"], "m"))["version"] == 1


async def test_memories_of_a_kind_fit_its_schema(agent: Agent, store: Store) -> None:
    for written in (dict, json.dumps):
        stops = {"stops": [{"city": "Rome"}, {"city": written.__name__}]}
        key = await agent.create(written(stops), kind=TRIP)
        assert (await store.get(HOME, key))["value"] == {"kind": "trip", "content": stops}
    wrong = {"content": {"stops": [{"city": "Rome"}, {"city": 3}]}}
    for change in (wrong, {**wrong, "action": "update", "id": key}):
        error = await agent.mistake(change, kind=TRIP)
        assert error.startswith("Nothing was written: content does not fit its kind: ")
        assert 'content.stops[1].city: 3 is not of type "string"' in error
    error = await agent.mistake({"content": "Went to Rome."}, kind=TRIP)
    assert error == 'Nothing was written: content must be an object, not "Went to Rome.".'
    assert (await store.get(HOME, key))["version"] == 1


async def test_there_is_one_document_of_a_singleton_kind(agent: Agent, store: Store) -> None:
    bob = {"content": {"name": "Bob"}}
    await store.put(HOME, "default", PROFILE)  # as a manager writes it
    assert "its id is default" in await agent.mistake(bob, kind="profile")
    await store.delete(HOME, "default")
    assert await agent.create({"name": "Alice"}, kind="profile") == "profile"
    assert "Update it: its id is profile" in await agent.mistake(bob, kind="profile")
    error = await agent.mistake(bob, kind="profile", actions_permitted=["create"])
    assert error.endswith("only one is kept. Leave it as it is.")
    await agent.call({**bob, "action": "update", "id": "profile"}, kind="profile")
    assert (await store.get(HOME, "profile"))["value"] == {"kind": "profile", **bob}


async def test_a_manager_chooses_namespace_kind_and_lifetime(agent: Agent, store: Store) -> None:
    config = {"namespace": ["u", "{id}"], "kinds": [TRIP, {"name": "memory"}], "ttl_seconds": 60}
    await store.call("PUT", "/v1/managers/trips", status=201, json=config)
    binding: JSON = {"manager": "trips", "variables": {"id": "bob"}}
    key = await agent.create({"stops": []}, **binding)
    item = await store.get(["u", "bob"], key)
    assert item["value"] == {"kind": "trip", "content": {"stops": []}}
    assert item["source"] == {"tool": "manage_memory", "manager": "trips"}
    assert item["expires_at"] == "2026-01-01T12:01:00+00:00"
    for member in ("manager", "manager_config"):
        key = await agent.create({"stops": []}, **{member: config}, variables={"id": member})
        described = await store.get(["u", member], key)
        assert described["source"] == {"tool": "manage_memory"}
        assert described["expires_at"] == item["expires_at"]
    both: JSON = {"manager": "trips", "manager_config": config, "variables": {"id": "eve"}}
    assert await agent.problem("manage_memory", {}, **both) == (422, "invalid_request")


async def test_the_same_content_is_created_once(agent: Agent, store: Store) -> None:
    bindings: list[JSON] = [{}, {"kind": TRIP}]
    for binding in bindings:
        content: Any = {"stops": []} if binding else "Likes tea."
        key = await agent.create(content, **binding)
        again = await agent.call({"content": content}, **binding)
        assert again == f"memory {key} says this already, so nothing was created"
    assert "says this already" in await agent.call({"content": " likes  tea"})
    assert len(await store.search(HOME)) == 2


async def test_only_permitted_actions_are_done(agent: Agent, store: Store) -> None:
    await store.put(HOME, "m", {"content": TEA})
    error = await agent.mistake(DELETE, actions_permitted=["create", "update"])
    assert 'action is "delete"; it must be create or update' in error
    await agent.call({"content": "Tea.", "id": "m"}, actions_permitted=["update", "delete"])
    assert (await store.get(HOME, "m"))["value"] == {"content": "Tea."}


async def test_all_concurrent_updates_count(agent: Agent, store: Store) -> None:
    await store.put(HOME, "m", {"content": "0"})
    updates = ({**UPDATE, "content": str(n)} for n in range(6))
    results = await asyncio.gather(*(agent.call(update) for update in updates))
    assert results == ["updated memory m"] * 6
    assert len(await store.versions(HOME, "m")) == 7


async def test_one_of_two_concurrent_first_profiles_is_kept(agent: Agent, store: Store) -> None:
    calls = ({"content": {"name": name}} for name in ("Alice", "Bob"))
    answers = await asyncio.gather(
        *(agent.answer("manage_memory", call, kind="profile") for call in calls)
    )
    assert sorted(answer["is_error"] for answer in answers) == [False, True]
    assert len(await store.versions(HOME, "profile")) == 1


async def test_an_action_needs_its_grants(
    agent_with: AgentWith, client: httpx2.AsyncClient
) -> None:
    owner = await agent_with(Verb)
    await Store(client, owner.headers).put(HOME, "m", {"content": "Old."})
    for needed, arguments in (
        ({Verb.WRITE}, {"content": TEA}),
        ({Verb.READ, Verb.WRITE}, UPDATE),
        ({Verb.DELETE}, DELETE),
    ):
        for verb in needed:
            agent = await agent_with(set(Verb) - {verb})
            assert await agent.problem("manage_memory", arguments) == (403, "forbidden")
        await (await agent_with(needed)).call(arguments)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
NEAR_MISSES = st.fixed_dictionaries(
    {},
    optional={
        "content": ANY | st.just({"name": "Alice"}),
        "action": st.sampled_from(["create", "update", "delete"]) | ANY,
        "id": st.sampled_from(["there", "profile"]) | ANY,
        "query": ANY,
        "limit": ANY,
        "offset": ANY,
        "filter": ANY | st.dictionaries(st.sampled_from(["$and", "$meta", "content"]), ANY),
    },
)


@hypothesis_settings(max_examples=60)
@given(
    arguments=st.one_of(ANY, NEAR_MISSES, st.one_of(ANY, NEAR_MISSES).map(json.dumps), st.text()),
    name=st.sampled_from(["manage_memory", "search_memory"]),
    kind=st.sampled_from([None, "profile", "episode"]),
)
async def test_any_arguments_are_answered_and_errors_write_nothing(
    arguments: Any, name: str, kind: str | None, agent: Agent, store: Store
) -> None:
    await store.put(HOME, "there", {"content": TEA})
    before = await history(store)
    body = json.dumps({"arguments": arguments, "namespace": HOME, "kind": kind and {"name": kind}})
    response = await agent.client.post(
        f"/v1/tools/{name}", content=body, headers={"content-type": "application/json"}
    )
    if response.status_code != 200:
        # Only texts that are not JSON, although Python writes them.
        assert response.status_code in (400, 422), response.text
        assert "NaN" in body or "Infinity" in body or "\\u" in body
        assert await history(store) == before
    elif response.json()["is_error"] or name == "search_memory":
        assert await history(store) == before


async def history(store: Store) -> list[tuple[str, int]]:
    return sorted((item["key"], item["version"]) for item in await store.search(HOME, limit=1000))
