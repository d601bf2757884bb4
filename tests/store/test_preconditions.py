"""If-Match and If-None-Match: their form, and what they guard over HTTP."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import FrozenClock
from app.errors import InvalidRequestError
from app.http.headers import Precondition
from tests.support.app import Store

ALICE = ["users", "alice"]


def parsed(**headers: str) -> Precondition:
    return Precondition.parse(headers.get("if_match"), headers.get("if_none_match"))


MALFORMED = [
    "", " ", "3", '"3', '3"', "'3'", '"1" "2"', '"1"; "2"', "*, *", '*, "1"', '"1", *',
    'w/"1"', 'W/ "1"', 'W/1', '"1"x', '"1", 2', "W/*", ",", " , ,",
]  # fmt: skip


def test_malformed_headers_are_refused_by_name() -> None:
    for header in MALFORMED:
        for name, headers in (("If-Match", (header, None)), ("If-None-Match", (None, header))):
            with pytest.raises(InvalidRequestError) as refused:
                Precondition.parse(*headers)
            assert refused.value.members["errors"][0]["field"] == name


@given(st.text(alphabet=st.sampled_from('*,W/" 12a\t'), max_size=30))
def test_any_header_is_read_or_refused(header: str) -> None:
    with suppress(InvalidRequestError):
        assert not Precondition.parse(header, None).holds(None)


tags = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["0", "1", "2", "01", "x", "*", "1,2", "W/"])),
    min_size=1,
    max_size=6,
)
gaps = st.sampled_from([",", ", ", " ,", " , ", ",\t", ",,", ", ,"])


@given(tags=tags, gap=gaps, version=st.sampled_from([None, 1, 2]))
def test_headers_hold_as_the_tags_in_them_say(
    tags: list[tuple[bool, str]], gap: str, version: int | None
) -> None:
    header = gap.join(f'{"W/" * weak}"{tag}"' for weak, tag in tags)
    named = {(weak, tag) for weak, tag in tags if tag == str(version)}
    assert parsed(if_match=header).holds(version) is ((False, str(version)) in named)
    assert parsed(if_none_match=header).holds(version) is (not named)


async def send(
    client: httpx2.AsyncClient, operation: str, key: str, **headers: str
) -> httpx2.Response:
    path = "/v1/store/items"
    body: dict[str, Any] = {"namespace": ALICE, "key": key}
    if operation == "get":
        query = {"namespace": ".".join(ALICE), "key": key}
        return await client.get(path, params=query, headers=headers)
    if operation == "restore":
        return await client.post(f"{path}/restore", json={**body, "version": 1}, headers=headers)
    if operation != "delete":
        body["value"] = {"by": operation}
    return await client.request(operation.upper(), path, json=body, headers=headers)


DONE = {"put": 204, "patch": 200, "delete": 204, "get": 200, "restore": 200}


ON_VERSION_TWO: list[tuple[dict[str, str], bool]] = [
    ({"If-Match": '"1", "2"'}, True),
    ({"If-Match": 'W/"2"'}, False),
    ({"If-None-Match": 'W/"2"'}, False),
    ({"If-Match": '"2"', "If-None-Match": '"1"'}, True),
    ({"If-Match": '"2"', "If-None-Match": '"2"'}, False),
]


@pytest.mark.parametrize("operation", DONE)
async def test_conditions_on_an_item_at_version_two(store: Store, operation: str) -> None:
    for number, (headers, holds) in enumerate(ON_VERSION_TWO):
        key = f"k{number}"
        await store.put(ALICE, key, {"n": 1})
        await store.put(ALICE, key, {"n": 2})
        response = await send(store.client, operation, key, **headers)
        if holds:
            assert response.status_code == DONE[operation]
            continue
        assert (await store.get(ALICE, key))["version"] == 2
        if operation == "get" and "If-None-Match" in headers:
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == '"2"'
            continue
        problem = response.json()
        assert response.status_code == problem["status"] == 412
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["code"], problem["version"]) == ("precondition_failed", 2)


ON_NOTHING = [
    ("put", {"If-Match": "*"}, 412),
    ("put", {"If-Match": '"1"'}, 412),
    ("put", {"If-None-Match": "*"}, 204),
    ("put", {"If-None-Match": '"1"'}, 204),
    ("patch", {"If-None-Match": "*"}, 404),
    ("patch", {"If-Match": '"1"'}, 404),
    ("delete", {"If-Match": '"1"'}, 412),
    ("delete", {"If-None-Match": "*"}, 204),
    ("get", {"If-Match": '"1"'}, 412),
    ("get", {"If-None-Match": "*"}, 200),
    ("restore", {"If-Match": "*"}, 412),
    ("restore", {"If-None-Match": "*"}, 200),
]


@pytest.mark.parametrize("end", ["never was", "deleted", "expired"])
async def test_conditions_on_an_item_that_does_not_exist(
    store: Store, clock: FrozenClock, end: str
) -> None:
    for number, (operation, headers, status) in enumerate(ON_NOTHING):
        key = f"k{number}"
        if end != "never was":
            await store.put(ALICE, key, {"n": 1}, ttl=1)
        elif operation == "restore":
            continue
        if end == "deleted":
            await store.delete(ALICE, key)
        else:
            clock.advance(timedelta(minutes=1))
        response = await send(store.client, operation, key, **headers)
        assert response.status_code == status, (operation, headers)
        if status == 412:
            assert response.json()["version"] is None
        if operation == "get" and status == 200:
            assert response.json() is None


async def test_malformed_headers_are_422_on_every_route(store: Store) -> None:
    await store.put(ALICE, "k", {"n": 1})
    for operation in DONE:
        response = await send(store.client, operation, "k", **{"If-Match": "1"})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "If-Match"
    assert len(await store.versions(ALICE, "k")) == 1


async def test_several_lines_of_a_header_are_one_list(store: Store) -> None:
    await store.put(ALICE, "k", {"n": 1})
    body = {"namespace": ALICE, "key": "k", "value": {"n": 2}}
    for name, status in (("If-None-Match", 412), ("If-Match", 204)):
        lines = [(name, '"9"'), (name, '"1"')]
        response = await store.client.put("/v1/store/items", json=body, headers=lines)
        assert response.status_code == status
