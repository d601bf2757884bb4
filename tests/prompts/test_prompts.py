import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.auth.access import Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import ALL_ROOTS, Database
from tests.support.keys import assert_problem, grant, key_with

pytestmark = pytest.mark.slow  # a request and a database each

URL = "/v1/prompts"
NOW = "2026-01-01T12:00:00+00:00"
CHANGES: list[tuple[str, str, Any]] = [
    ("PUT", "p", {"text": "c"}),
    ("POST", "p/promote", {"version": 1}),
    ("POST", "p/rollback", {}),
    ("DELETE", "p/labels/beta", None),
    ("DELETE", "p", None),
]


async def put(client: httpx2.AsyncClient, text: str, name: str = "p", **body: Any) -> Any:
    response = await client.put(f"{URL}/{name}", json={"text": text, **body})
    assert response.status_code in {200, 201}, response.text
    return response.json()


async def get(client: httpx2.AsyncClient, path: str = "p", **query: Any) -> Any:
    response = await client.get(f"{URL}/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def post(client: httpx2.AsyncClient, verb: str, **body: Any) -> httpx2.Response:
    return await client.post(f"{URL}/p/{verb}", json=body)


async def labels(client: httpx2.AsyncClient) -> dict[str, int]:
    [prompt] = (await client.get(URL)).json()["prompts"]
    found: dict[str, int] = prompt["labels"]
    return found


def fields_of(response: httpx2.Response) -> list[str]:
    assert response.status_code == 422, response.text
    return [error["field"] for error in response.json()["errors"]]


async def test_the_first_version_is_in_production(client: httpx2.AsyncClient) -> None:
    body = {
        "text": "Answer {question} briefly.\r\n\u2028",
        "update_instructions": "Keep the placeholder.",
        "when_to_update": "Answers are too long.",
        "analysis": "By hand.",
    }
    expected = {
        "name": "p",
        "version": 1,
        **body,
        "labels": ["production"],
        "based_on": None,
        "actor": "anonymous",
        "created_at": NOW,
        "updated_at": NOW,
    }
    created = await client.put(f"{URL}/p", json=body)
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    assert created.json() == expected
    for query in ({}, {"label": "production"}, {"version": 1}):
        assert await get(client, **query) == expected


async def test_another_text_is_a_new_version_without_labels(
    client: httpx2.AsyncClient, clock: FrozenClock
) -> None:
    await put(client, "Be brief.", update_instructions="Keep it short.")
    clock.advance(timedelta(minutes=1))
    response = await client.put(f"{URL}/p", json={"text": "Be very brief."})
    assert (response.status_code, response.headers["etag"]) == (200, '"2"')
    later = "2026-01-01T12:01:00+00:00"
    new = response.json()
    assert (new["version"], new["labels"], new["update_instructions"]) == (2, [], None)
    assert (new["created_at"], new["updated_at"]) == (later, later)
    old = await get(client, label="production")
    assert (old["version"], old["text"]) == (1, "Be brief.")
    assert (old["created_at"], old["updated_at"]) == (NOW, later)
    assert (await put(client, "Be brief."))["version"] == 3, "even if the text was there before"


async def test_putting_the_same_prompt_again_changes_nothing(
    client: httpx2.AsyncClient, clock: FrozenClock
) -> None:
    body = {"text": "Be brief.", "when_to_update": "Never.", "labels": ["a", "b", "a"]}
    first = await client.put(f"{URL}/p", json=body)
    clock.advance(timedelta(minutes=1))
    second = await client.put(f"{URL}/p", json={**body, "analysis": "of a version that is there"})
    assert second.json() == first.json()
    assert second.headers["etag"] == first.headers["etag"] == '"1"'
    assert first.json()["labels"] == ["a", "b"]
    other = await client.put(f"{URL}/p", json={**body, "when_to_update": "Always."})
    assert (other.json()["version"], other.headers["etag"]) == (1, '"2"')
    assert other.json()["when_to_update"] == "Always."


async def test_the_candidate_is_promoted_to_production_by_default(
    client: httpx2.AsyncClient,
) -> None:
    await put(client, "a")
    await put(client, "b", labels=["candidate"])
    promoted = await post(client, "promote")
    assert (promoted.status_code, promoted.headers["etag"]) == (200, '"3"')
    assert promoted.json()["version"] == 2
    assert promoted.json()["labels"] == ["candidate", "production"]
    assert (await post(client, "promote")).headers["etag"] == '"3"', "it is promoted already"
    assert (await post(client, "promote", version=1, label="eu")).json()["labels"] == ["eu"]
    assert (await post(client, "promote", from_label="eu")).json()["version"] == 1
    assert await labels(client) == {"candidate": 2, "eu": 1, "production": 1}


async def test_a_hundred_moves_can_be_rolled_back(
    client: httpx2.AsyncClient, database: Database
) -> None:
    for text in ("1", "2", "3"):
        await put(client, text, labels=["production"])
    assert (await post(client, "rollback", label="production")).json()["text"] == "2"
    back = await post(client, "rollback")
    assert (back.json()["text"], back.headers["etag"]) == ("1", '"5"')
    assert_problem(await post(client, "rollback"), 409, "nothing_to_roll_back")
    async with database.connection(ALL_ROOTS) as connection:
        await connection.execute(
            "UPDATE prompt_labels SET earlier = array_fill(2, ARRAY[99]) || array_fill(3, ARRAY[1])"
        )
    assert (await put(client, "4", labels=["production"]))["version"] == 4
    async with database.connection(ALL_ROOTS) as connection:
        [row] = await connection.fetch("SELECT earlier FROM prompt_labels")
    assert row["earlier"] == [2] * 98 + [3, 1]


async def test_deleting_a_label_leaves_its_version_and_a_prompt_nothing(
    client: httpx2.AsyncClient,
) -> None:
    await put(client, "a", labels=["beta", "production"])
    for _ in range(2):
        assert (await client.delete(f"{URL}/p/labels/beta")).status_code == 204
        assert (await client.get(f"{URL}/p")).headers["etag"] == '"2"'
    assert await labels(client) == {"production": 1}
    for _ in range(2):
        assert (await client.delete(f"{URL}/p")).status_code == 204
    for path in ("p", "p/versions", "p/diff"):
        assert_problem(await client.get(f"{URL}/{path}"), 404, "prompt_not_found")
    assert (await client.get(URL)).json() == {"prompts": [], "next_cursor": None}
    assert (await put(client, "b"))["version"] == 1


async def test_a_missing_version_or_label_is_answered_with_those_that_exist(
    client: httpx2.AsyncClient,
) -> None:
    await put(client, "a")
    await put(client, "b", labels=["candidate"])
    for name, value, existing in (
        ("version", 2**31 - 1, "versions 1 to 2"),
        ("label", "beta", "candidate (version 2), production"),
    ):
        body = {"from_label" if name == "label" else name: value}
        for response in (
            await client.get(f"{URL}/p", params={name: value}),
            await post(client, "promote", **body),
            await client.get(f"{URL}/p/diff", params={"to": value}),
        ):
            assert existing in assert_problem(response, 404, f"prompt_{name}_not_found")


async def test_a_prompt_has_at_most_fifty_custom_labels(client: httpx2.AsyncClient) -> None:
    await put(client, "a", labels=[f"l{number}" for number in range(50)])
    too_many = await post(client, "promote", version=1, label="l50")
    assert_problem(too_many, 409, "too_many_labels")
    response = await client.put(f"{URL}/p", json={"text": "b", "labels": ["l50"]})
    assert_problem(response, 409, "too_many_labels")
    assert (await get(client))["text"] == "a"
    for label in ("l7", "production", "candidate"):
        assert (await post(client, "promote", version=1, label=label)).status_code == 200


async def test_prompts_are_listed_by_name(client: httpx2.AsyncClient) -> None:
    for name in ("b", "B", "a", "c-1", "c.1"):
        await put(client, "x", name)
    await put(client, "y", "a", labels=["candidate"])
    first = (await client.get(URL, params={"limit": 3})).json()
    rest = (await client.get(URL, params={"cursor": first["next_cursor"]})).json()
    names = [prompt["name"] for page in (first, rest) for prompt in page["prompts"]]
    assert (names, rest["next_cursor"]) == (["B", "a", "b", "c-1", "c.1"], None)
    assert first["prompts"][1] == {
        "name": "a",
        "newest_version": 2,
        "labels": {"candidate": 2, "production": 1},
        "update_instructions": None,
        "when_to_update": None,
        "created_at": NOW,
        "updated_at": NOW,
    }


async def test_versions_are_listed_newest_first(client: httpx2.AsyncClient) -> None:
    for number in range(1, 4):
        await put(client, "é" * number, analysis=f"number {number}")
    first = await get(client, "p/versions", limit=2)
    assert [version["version"] for version in first["versions"]] == [3, 2]
    assert await get(client, "p/versions", limit=2, cursor=first["next_cursor"]) == {
        "versions": [
            {
                "version": 1,
                "characters": 1,
                "labels": ["production"],
                "based_on": None,
                "analysis": "number 1",
                "actor": "anonymous",
                "created_at": NOW,
            }
        ],
        "next_cursor": None,
    }


async def test_a_diff_is_from_production_to_the_candidate_or_the_newest(
    client: httpx2.AsyncClient,
) -> None:
    await put(client, "Be kind.\nBe brief.\n")
    same = {"name": "p", "from_version": 1, "to_version": 1, "diff": ""}
    assert await get(client, "p/diff") == same
    await put(client, "Be kind.\nBe very brief.\n")
    newest = {
        "name": "p",
        "from_version": 1,
        "to_version": 2,
        "diff": "--- p (version 1)\n+++ p (version 2)\n@@ -1,2 +1,2 @@\n Be kind.\n"
        "-Be brief.\n+Be very brief.\n",
    }
    assert await get(client, "p/diff") == newest
    await post(client, "promote", version=2, label="candidate")
    await put(client, "Be.")
    assert await get(client, "p/diff") == newest
    turned = await get(client, "p/diff", **{"from": "candidate", "to": "1"})
    assert (turned["from_version"], turned["to_version"]) == (2, 1)
    assert turned["diff"].endswith("-Be very brief.\n+Be brief.\n")


async def test_every_change_depends_on_its_condition(client: httpx2.AsyncClient) -> None:
    async def change(condition: str, revision: str) -> list[httpx2.Response]:
        headers = {condition: revision}
        return [
            await client.request(method, f"{URL}/{path}", json=body, headers=headers)
            for method, path, body in CHANGES
        ]

    for missing in await change("if-match", "*"):
        assert_problem(missing, 412, "precondition_failed")
    await put(client, "a", labels=["production", "beta"])
    await put(client, "b", labels=["production"])
    for stale in await change("if-none-match", '"2"'):
        assert_problem(stale, 412, "precondition_failed")
        assert stale.json()["revision"] == 2
    for method, path, body in CHANGES:
        known = {"if-match": (await client.get(f"{URL}/p")).headers["etag"]}
        fresh = await client.request(method, f"{URL}/{path}", json=body, headers=known)
        assert fresh.is_success, fresh.text
    assert_problem(await client.get(f"{URL}/p"), 404, "prompt_not_found")


async def test_an_unchanged_prompt_is_not_sent_again(client: httpx2.AsyncClient) -> None:
    await put(client, "a")
    paths = [f"{URL}/{path}" for path in ("p", "p/versions", "p/diff")]
    known = {"if-none-match": '"1"'}
    for path in paths:
        again = await client.get(path, headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", '"1"')
    await post(client, "promote", version=1, label="beta")
    for path in paths:
        assert (await client.get(path, headers=known)).status_code == 200
        stale = await client.get(path, headers={"if-match": '"1"'})
        assert_problem(stale, 412, "precondition_failed")


async def test_one_of_many_concurrent_conditional_puts_succeeds(client: httpx2.AsyncClient) -> None:
    async def write(number: int) -> int:
        body = {"text": f"text {number}"}
        response = await client.put(f"{URL}/p", json=body, headers={"if-none-match": "*"})
        return response.status_code

    assert sorted(await asyncio.gather(*map(write, range(8)))) == [201] + [412] * 7
    assert (await get(client))["version"] == 1


@pytest.mark.parametrize(
    ("granted", "may_read", "may_write"),
    [
        (grant({Verb.READ}, "users", "alice"), True, False),
        (grant(Verb, "users"), True, False),
        (grant(set(Verb) - {Verb.READ, Verb.ADMIN}), False, False),
        (grant({Verb.ADMIN}), False, True),
    ],
)
async def test_reading_takes_read_anywhere_and_changing_admin_on_the_root(
    client: httpx2.AsyncClient, keys: KeyService, granted: Grant, *, may_read: bool, may_write: bool
) -> None:
    owner = await key_with(keys, root=("acme",))
    headers = await key_with(keys, granted, root=("acme",))
    for text in ("a", "b"):
        body = {"text": text, "labels": ["production"]}
        await client.put(f"{URL}/p", json=body, headers=owner)
    for path in ("", "/p", "/p/versions", "/p/diff"):
        response = await client.get(URL + path, headers=headers)
        assert response.status_code == (200 if may_read else 403), response.text
    for method, path, sent in CHANGES:
        response = await client.request(method, f"{URL}/{path}", json=sent, headers=headers)
        assert (response.status_code < 300) is may_write, response.text
        assert may_write or response.json()["code"] == "forbidden"


async def test_invalid_names_are_refused(client: httpx2.AsyncClient) -> None:
    reads = [("GET", f"p{below}", None) for below in ("", "/versions", "/diff")]
    for method, path, body in [*CHANGES, *reads]:
        response = await client.request(method, f"{URL}/a%20b{path[1:]}", json=body)
        assert fields_of(response) == ["name"]
    for name in ("é", "a%00", "0" * 129, "a%0A", ".a"):
        assert fields_of(await client.put(f"{URL}/{name}", json={"text": "a"})) == ["name"]


LONG = "x" * 200_001
WRONG_BODIES: list[tuple[Any, str]] = [
    (None, "body"),
    ({}, "text"),
    ({"text": " \n\t\u2028"}, "text"),
    ({"text": "a\x00"}, "text"),
    ({"text": LONG}, "text"),
    ({"text": "a", "update_instructions": "a\x00"}, "update_instructions"),
    ({"text": "a", "update_instructions": LONG}, "update_instructions"),
    ({"text": "a", "when_to_update": LONG}, "when_to_update"),
    ({"text": "a", "analysis": LONG}, "analysis"),
    ({"text": "a", "labels": ["production", "12"]}, "labels[1]"),
    ({"text": "a", "labels": ["a b"]}, "labels[0]"),
    ({"text": "a", "labels": ["x" * 65]}, "labels[0]"),
    ({"text": "a", "labels": ["x"] * 51}, "labels"),
    ({"text": "a", "version": 1}, "version"),
]
WRONG_QUERIES: list[tuple[str, dict[str, str], str]] = [
    ("/p", {"version": str(2**31)}, "version"),
    ("/p", {"label": "12"}, "label"),
    ("/p", {"label": "production", "version": "1"}, "version"),
    ("/p", {"tag": "production"}, "tag"),
    ("/p/versions", {"limit": "101"}, "limit"),
    ("/p/versions", {"cursor": "x"}, "cursor"),
    ("/p/diff", {"from": "a b"}, "from"),
    ("/p/diff", {"to": ""}, "to"),
    ("", {"limit": "201"}, "limit"),
    ("", {"cursor": "a b"}, "cursor"),
]
WRONG_MOVES: list[tuple[str, Any, str]] = [
    ("promote", {"version": 1, "from_label": "candidate"}, "version"),
    ("promote", {"version": "1"}, "version"),
    ("promote", {"label": "1"}, "label"),
    ("rollback", {"label": "a b"}, "label"),
    ("rollback", {"version": 1}, "version"),
]


async def test_errors_in_requests_are_named(client: httpx2.AsyncClient) -> None:
    for body, field in WRONG_BODIES:
        assert fields_of(await client.put(f"{URL}/p", json=body)) == [field]
    assert_problem(await client.get(f"{URL}/p"), 404, "prompt_not_found")
    await put(client, "a")
    for path, query, field in WRONG_QUERIES:
        assert fields_of(await client.get(URL + path, params=query)) == [field]
    for verb, body, field in WRONG_MOVES:
        assert fields_of(await client.post(f"{URL}/p/{verb}", json=body)) == [field]
    for number in ("0", "99", "9" * 60):  # in a diff, any number is a version's
        response = await client.get(f"{URL}/p/diff", params={"from": number})
        assert_problem(response, 404, "prompt_version_not_found")


async def test_the_longest_prompt_is_returned_as_it_was_written(client: httpx2.AsyncClient) -> None:
    text = "\U0001f600" * 200_000
    assert (await put(client, text))["text"] == text
    assert (await get(client))["text"] == text
