import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.conversations.kinds import EPISODE
from tests.support.app import Store
from tests.tools.agent import HOME, JSON, Agent

pytestmark = pytest.mark.slow

TEA = "Alice drinks tea."

STOP: JSON = {
    "name": "trip",
    "schema": {
        "type": "object",
        "properties": {"stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}}},
        "required": ["stops"],
        "$defs": {
            "stop": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            }
        },
    },
}


async def test_a_memory_is_created_updated_and_deleted(agent: Agent, store: Store) -> None:
    key = await agent.creates(TEA)
    assert str(UUID(key)) == key
    item = await store.get(HOME, key)
    assert item["value"] == {"content": TEA}
    assert item["source"]["tool"] == "manage_memory"
    change = {"content": "Alice drinks coffee.", "action": "update", "id": key}
    assert await agent.does(change) == f"updated memory {key}"
    assert (await store.get(HOME, key))["value"] == {"content": "Alice drinks coffee."}
    assert await agent.does({"action": "delete", "id": key}) == f"Deleted memory {key}"
    assert await store.get(HOME, key) is None


async def test_the_history_says_who_did_what(
    client: httpx2.AsyncClient, keys: KeyService, store: Store
) -> None:
    token = await keys.create(
        "agent", root=(), grants=(Grant((), frozenset(Verb)),), expires_at=None
    )
    headers = {"x-api-key": str(token)}
    agent = Agent(client, headers)
    key = await agent.creates(TEA)
    await agent.does({"content": "Tea.", "action": "update", "id": key})
    await agent.does({"action": "delete", "id": key})
    versions = await Store(client, headers).versions(HOME, key)
    assert [version["action"] for version in versions] == ["delete", "put", "put"]
    assert {version["actor"] for version in versions} == {f"mk_{token.id}"}
    assert [v["value"] for v in versions] == [None, {"content": "Tea."}, {"content": TEA}]


async def test_arguments_may_be_text_as_openai_sends_them(agent: Agent, store: Store) -> None:
    told = await agent.does(json.dumps({"content": TEA, "action": "create", "id": None}))
    assert (await store.get(HOME, told.split()[-1]))["value"] == {"content": TEA}


async def test_an_empty_id_is_none(agent: Agent) -> None:
    assert (await agent.does({"content": TEA, "id": ""})).startswith("created memory ")


async def test_what_the_model_adds_is_not_looked_at(agent: Agent) -> None:
    await agent.creates(TEA)
    told = await agent.does({"content": TEA, "namespace": ["memories", "bob"], "user_id": "bob"})
    assert told.startswith("created memory ")
    assert len(await agent.finds("tea")) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"content": TEA, "id": "x"}, "a new memory gets its id by itself"),
        ({}, "content is missing"),
        ({"content": None}, "content is missing"),
        ({"content": " \n"}, "content is empty"),
        ({"content": 7}, "content must be text, not 7"),
        ({"content": {"text": TEA}}, 'content must be text, not {"text"'),
        ({"content": "a\u0000b"}, "arguments.content contains U+0000"),
        ({"content": "x" * 70_000}, "content is 70,000 bytes; at most 65,536 are kept"),
        ({"content": TEA, "action": "upsert"}, 'action is "upsert"; it must be create, update or'),
        ({"content": TEA, "action": ["create"]}, 'action is ["create"]'),
        ({"content": TEA, "action": "update"}, "to update a memory, send its id"),
        ({"content": TEA, "action": "update", "id": 3}, "id is 3; send the key that"),
        ({"content": TEA, "action": "update", "id": "x"}, 'no memory "x" in the namespace ["memo'),
        ({"action": "delete"}, "to delete a memory, send its id"),
        ({"action": "delete", "id": "x"}, "Use search_memory to find the one you mean"),
        ({"action": "delete", "id": "x" * 3000}, "there is no memory"),
        ("{", "the arguments are not JSON but {. Send one JSON object"),
        ("[1]", "not a JSON object but [1]"),
        (7, "not a JSON object but 7"),
        ([], "not a JSON object but []"),
        (["content"], 'not a JSON object but ["content"]'),
        ("null", "content is missing"),
        (" ", "content is missing"),
        ('{"content": "' + "\\ud800" + '"}', "the arguments are not JSON"),
        ("[" * 100_000, "the arguments are not JSON"),
        ('{"content": ' + "9" * 5_000 + "}", "the arguments are not JSON"),
    ],
)
async def test_a_mistake_is_told_to_the_model_and_nothing_is_written(
    agent: Agent, store: Store, arguments: Any, told: str
) -> None:
    assert told in await agent.errs(arguments)
    assert await store.search([]) == []


@pytest.mark.parametrize("key", ["default", "profile", "notes/2026 ä.md", "3"])
async def test_any_key_that_is_there_can_be_updated_and_deleted(
    agent: Agent, store: Store, key: str
) -> None:
    await store.put(HOME, key, {"content": TEA})
    await agent.does({"content": "Tea.", "action": "update", "id": key})
    assert (await store.get(HOME, key))["value"] == {"content": "Tea."}
    await agent.does({"action": "delete", "id": key})
    assert await store.get(HOME, key) is None


async def test_a_memory_keeps_its_form_when_its_words_change(agent: Agent, store: Store) -> None:
    await store.put(HOME, "m", {"kind": "memory", "content": {"content": TEA}})
    await agent.does({"content": "Tea.", "action": "update", "id": "m"})
    assert (await store.get(HOME, "m"))["value"] == {
        "kind": "memory",
        "content": {"content": "Tea."},
    }


async def test_a_document_is_not_made_a_sentence(agent: Agent, store: Store) -> None:
    profile = {"kind": "profile", "content": {"name": "Alice", "facts": ["has a dog"]}}
    await store.put(HOME, "profile", profile)
    told = await agent.errs({"content": "Alice has a cat.", "action": "update", "id": "profile"})
    assert "memory profile is of the kind profile, and this tool writes text" in told
    assert (await store.get(HOME, "profile"))["value"] == profile


async def test_what_else_a_value_holds_stays_when_its_text_changes(
    agent: Agent, store: Store
) -> None:
    await store.put(HOME, "m", {"content": TEA, "tags": ["drinks"], "kind": "note"})
    await agent.does({"content": "Tea.", "action": "update", "id": "m"})
    value = (await store.get(HOME, "m"))["value"]
    assert value == {"content": "Tea.", "tags": ["drinks"], "kind": "note"}


@pytest.mark.parametrize("kind", [None, "profile"])
@pytest.mark.parametrize(
    "value",
    [
        {"name": "Alice", "plan": "pro"},
        {"content": {"name": "Alice"}, "plan": "pro"},
        {"kind": "customer", "content": {"name": "Alice"}},
        {"kind": 5, "content": {"name": "Alice"}},
    ],
)
async def test_documents_of_others_are_not_overwritten(
    agent: Agent, store: Store, value: JSON, kind: str | None
) -> None:
    await store.put(HOME, "m", value)
    content = TEA if kind is None else {"name": "Bob"}
    told = await agent.errs({"content": content, "action": "update", "id": "m"}, kind=kind)
    assert told.startswith("Nothing was changed: memory m is ")
    assert (await store.get(HOME, "m"))["value"] == value


async def test_a_memory_that_langmem_wrote_becomes_one_of_the_kind(
    agent: Agent, store: Store
) -> None:
    await store.put(HOME, "m", {"content": {"name": "Alice"}})
    change = {"content": {"name": "Bob"}, "action": "update", "id": "m"}
    assert "a document of its own form" in await agent.errs({**change, "content": TEA})
    await agent.does(change, kind="profile")
    value = (await store.get(HOME, "m"))["value"]
    assert value == {"kind": "profile", "content": {"name": "Bob"}}


async def test_an_update_keeps_all_but_the_words(
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
    await agent.does({"content": "Tea.", "action": "update", "id": "m"})
    after = await store.get(HOME, "m")
    kept = ("importance", "pinned", "valid_from", "valid_to", "created_at")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["expires_at"] == "2026-01-01T13:30:00+00:00"


async def test_what_has_expired_is_not_there(
    agent: Agent, store: Store, clock: FrozenClock
) -> None:
    await store.put(HOME, "m", {"content": TEA}, ttl=1)
    clock.advance(timedelta(minutes=2))
    assert "no memory" in await agent.errs({"content": "x", "action": "update", "id": "m"})
    assert "no memory" in await agent.errs({"action": "delete", "id": "m"})


async def test_of_a_single_kind_there_may_be_another_document_when_one_has_expired(
    agent: Agent, store: Store, clock: FrozenClock
) -> None:
    await store.put(HOME, "profile", {"kind": "profile", "content": {"name": "Alice"}}, ttl=1)
    clock.advance(timedelta(minutes=2))
    await agent.creates({"name": "Bob"}, kind="profile")
    assert (await store.get(HOME, "profile"))["value"]["content"] == {"name": "Bob"}


async def test_what_is_below_the_namespace_is_found_but_only_read(
    agent: Agent, store: Store
) -> None:
    await store.put([*HOME, "work"], "m", {"content": TEA})
    assert [item["key"] for item in await agent.finds("tea")] == ["m"]
    for change in ({"content": "Tea.", "action": "update"}, {"action": "delete"}):
        told = await agent.errs({**change, "id": "m"})
        assert 'in the namespace ["memories", "alice"], and those of other' in told
    assert (await store.get([*HOME, "work"], "m"))["version"] == 1


async def test_memories_of_a_kind_fit_its_schema(agent: Agent, store: Store) -> None:
    stops = {"stops": [{"city": "Rome"}, {"city": "Turin"}]}
    key = await agent.creates(stops, kind=STOP)
    assert (await store.get(HOME, key))["value"] == {"kind": "trip", "content": stops}
    wrong = {"stops": [{"city": "Rome"}, {"city": 3}]}
    told = await agent.errs({"content": wrong}, kind=STOP)
    assert told.startswith("Nothing was written: content does not fit its kind: ")
    assert 'content.stops[1].city: 3 is not of type "string"' in told
    told = await agent.errs({"content": wrong, "action": "update", "id": key}, kind=STOP)
    assert "content.stops[1].city" in told
    assert (await store.get(HOME, key))["version"] == 1


async def test_an_object_may_be_written_as_text_of_json(agent: Agent, store: Store) -> None:
    key = await agent.creates(json.dumps({"stops": []}), kind=STOP)
    assert (await store.get(HOME, key))["value"]["content"] == {"stops": []}


async def test_text_for_a_kind_is_refused_in_words(agent: Agent) -> None:
    told = await agent.errs({"content": "Went to Rome."}, kind="episode")
    assert told == 'Nothing was written: content must be an object, not "Went to Rome.".'


async def test_a_memory_of_one_kind_is_not_made_one_of_another(agent: Agent, store: Store) -> None:
    key = await agent.creates({"stops": []}, kind=STOP)
    content = dict.fromkeys(EPISODE.schema["required"], "x")
    told = await agent.errs({"content": content, "action": "update", "id": key}, kind="episode")
    assert f"memory {key} is of the kind trip, and this tool writes the kind episode" in told
    assert (await store.get(HOME, key))["version"] == 1


async def test_of_a_single_kind_there_is_one_document(agent: Agent, store: Store) -> None:
    assert await agent.creates({"name": "Alice"}, kind="profile") == "profile"
    told = await agent.errs({"content": {"name": "Bob"}}, kind="profile")
    assert "Update it: its id is profile" in told
    told = await agent.errs(
        {"content": {"name": "Bob"}}, kind="profile", actions_permitted=["create"]
    )
    assert told.endswith("only one is kept. Leave it as it is.")
    await agent.does(
        {"content": {"name": "Alice", "language": "German"}, "action": "update", "id": "profile"},
        kind="profile",
    )
    value = (await store.get(HOME, "profile"))["value"]
    assert value == {"kind": "profile", "content": {"name": "Alice", "language": "German"}}


async def test_a_managers_default_is_the_one_document(agent: Agent, store: Store) -> None:
    await store.put(HOME, "default", {"kind": "profile", "content": {"name": "Alice"}})
    assert "its id is default" in await agent.errs({"content": {"name": "Bob"}}, kind="profile")


async def test_a_manager_says_where_how_and_for_how_long(agent: Agent, store: Store) -> None:
    config = {"namespace": ["u", "{id}"], "kinds": [STOP, {"name": "memory"}], "ttl_seconds": 60}
    await store.call("PUT", "/v1/managers/trips", status=201, json=config)
    binding: JSON = {"manager": "trips", "variables": {"id": "bob"}}
    key = await agent.creates({"stops": []}, **binding)
    item = await store.get(["u", "bob"], key)
    assert item["value"] == {"kind": "trip", "content": {"stops": []}}
    assert item["source"] == {"tool": "manage_memory", "manager": "trips"}
    assert item["expires_at"] == "2026-01-01T12:01:00+00:00"


async def test_only_what_is_permitted_is_done(agent: Agent, store: Store) -> None:
    key = await agent.creates(TEA, actions_permitted=["create"])
    told = await agent.errs({"action": "delete", "id": key}, actions_permitted=["create", "update"])
    assert 'action is "delete"; it must be create or update' in told
    await agent.does({"content": "Tea.", "id": key}, actions_permitted=["update", "delete"])
    assert (await store.get(HOME, key))["value"] == {"content": "Tea."}


async def test_of_updates_at_once_all_count(agent: Agent, store: Store) -> None:
    key = await agent.creates("0")
    updates = ({"content": str(n), "action": "update", "id": key} for n in range(12))
    told = await asyncio.gather(*(agent.does(update) for update in updates))
    assert told == [f"updated memory {key}"] * 12
    assert len(await store.versions(HOME, key)) == 13


async def test_of_two_first_profiles_one_is_kept(agent: Agent, store: Store) -> None:
    calls = ({"content": {"name": name}} for name in ("Alice", "Bob"))
    answers = await asyncio.gather(
        *(agent.answer("manage_memory", call, kind="profile") for call in calls)
    )
    assert sorted(answer["is_error"] for answer in answers) == [False, True]
    assert len(await store.versions(HOME, "profile")) == 1


@pytest.mark.parametrize(
    ("needed", "arguments"),
    [
        ({Verb.WRITE}, {"content": TEA}),
        ({Verb.READ, Verb.WRITE}, {"content": TEA, "action": "update", "id": "m"}),
        ({Verb.DELETE}, {"action": "delete", "id": "m"}),
    ],
)
async def test_an_action_takes_its_grants(
    client: httpx2.AsyncClient, keys: KeyService, needed: set[Verb], arguments: JSON
) -> None:
    async def agent_with(*verbs: Verb) -> Agent:
        grants = (Grant(tuple(HOME), frozenset(verbs)),)
        token = await keys.create("agent", root=(), grants=grants, expires_at=None)
        return Agent(client, {"x-api-key": str(token)})

    everything = await agent_with(*Verb)
    await Store(client, everything.headers).put(HOME, "m", {"content": "Old."})
    for verb in needed:
        others = await agent_with(*(other for other in Verb if other != verb))
        assert await others.problem("manage_memory", arguments) == (403, "forbidden")
    await (await agent_with(*needed)).does(arguments)


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


@pytest.mark.parametrize("kind", [None, "profile", "episode"])
@hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arguments=st.one_of(ANY, NEAR_MISSES, st.one_of(ANY, NEAR_MISSES).map(json.dumps), st.text()),
    name=st.sampled_from(["manage_memory", "search_memory"]),
)
async def test_whatever_a_model_writes_is_answered_and_writes_only_without_an_error(
    arguments: Any, name: str, kind: str | None, agent: Agent, store: Store
) -> None:
    await store.put(HOME, "there", {"content": TEA})
    before = await history(store)
    body = json.dumps({"arguments": arguments, "namespace": HOME, "kind": kind and {"name": kind}})
    response = await agent.client.post(
        f"/v1/tools/{name}", content=body, headers={"content-type": "application/json"}
    )
    if response.status_code != 200:
        # Only what is no JSON at all, though Python writes it so.
        assert response.status_code in (400, 422), response.text
        assert "NaN" in body or "Infinity" in body or "\\u" in body
        assert await history(store) == before
    elif response.json()["is_error"] or name == "search_memory":
        assert await history(store) == before


async def history(store: Store) -> list[tuple[str, int]]:
    return sorted((item["key"], item["version"]) for item in await store.search(HOME, limit=1000))
