"""Listing namespaces."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.clock import FrozenClock
from app.db.database import Connection, Database
from app.db.pages import PAGE_BYTES
from app.namespaces import ALL_ROOTS, to_stored
from app.store.namespace_repository import NamespaceQuery, list_namespaces
from tests.support.app import Store

SPACES = [["a"], ["a", "b"], ["a", "b", "c"], ["a", "x", "c"], ["ab"], ["z", "c"]]


@pytest.fixture
async def filled(store: Store) -> Store:
    for namespace in SPACES:
        await store.put(namespace, "k", {"n": 1}, index=False)
    return store


async def test_namespaces_are_listed_in_order_and_in_pages(filled: Store) -> None:
    assert await filled.namespaces() == SPACES
    pages = [await filled.namespaces(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert pages == [SPACES[:2], SPACES[2:4], SPACES[4:], []]
    assert await filled.namespaces(max_depth=2, limit=2, offset=1) == [["a", "b"], ["a", "x"]]


async def test_a_star_is_exactly_one_label(filled: Store) -> None:
    assert await filled.namespaces(prefix=["a", "*", "c"]) == [["a", "b", "c"], ["a", "x", "c"]]
    assert await filled.namespaces(prefix=["*", "b"], suffix=["c"]) == [["a", "b", "c"]]


async def test_counts_are_of_what_each_line_stands_for(filled: Store) -> None:
    async def counted(**body: object) -> dict[str, int]:
        response = await filled.call(
            "POST", "/v1/store/namespaces", status=200, json={"counts": True, **body}
        )
        found = response.json()
        return dict(zip((".".join(n) for n in found["namespaces"]), found["counts"], strict=True))

    await filled.put(["a"], "k2", {"n": 1}, index=False)
    assert await counted(prefix=["a"]) == {"a": 2, "a.b": 1, "a.b.c": 1, "a.x.c": 1}
    assert await counted(max_depth=1) == {"a": 5, "ab": 1, "z": 1}


async def test_emptied_and_expired_namespaces_are_not_listed(
    filled: Store, clock: FrozenClock
) -> None:
    await filled.put(["soon"], "k", {"n": 1}, ttl=1, index=False)
    await filled.delete(["ab"], "k")
    assert ["soon"] in await filled.namespaces()
    clock.advance(timedelta(minutes=2))
    assert await filled.namespaces() == [space for space in SPACES if space != ["ab"]]


labels = st.lists(st.sampled_from("ab*"), min_size=0, max_size=3)


@pytest.mark.slow
@hypothesis_settings(max_examples=40)
@given(
    spaces=st.lists(
        st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4), max_size=8
    ),
    prefix=labels,
    suffix=labels,
    max_depth=st.none() | st.integers(1, 3),
)
async def test_listing_agrees_with_a_plain_reading_of_the_rules(
    database_url: str,
    clock: FrozenClock,
    spaces: list[list[str]],
    prefix: list[str],
    suffix: list[str],
    max_depth: int | None,
) -> None:
    def matches(space: list[str]) -> bool:
        if len(space) < max(len(prefix), len(suffix)):
            return False
        end = space[len(space) - len(suffix) :]
        pairs = [*zip(prefix, space, strict=False), *zip(suffix, end, strict=True)]
        return all(pattern in ("*", label) for pattern, label in pairs)

    expected = sorted({tuple(space[:max_depth]) for space in spaces if matches(space)})
    database = await Database.open(database_url, pool_size=1)
    try:
        async with database.transaction("") as connection:
            await _fill(connection, spaces)
            query = NamespaceQuery(prefix, suffix, max_depth)
            found, _ = await list_namespaces(connection, ALL_ROOTS, query, clock.now(), PAGE_BYTES)
            await connection.execute("DELETE FROM items; DELETE FROM namespaces")
    finally:
        await database.close()
    assert [tuple(space) for space in found] == expected


async def _fill(connection: Connection, spaces: list[list[str]]) -> None:
    stored = sorted({to_stored(space) for space in spaces})
    await connection.execute("INSERT INTO namespaces SELECT unnest($1::text[])", stored)
    await connection.execute(
        "INSERT INTO items (namespace, key, value, version, created_at, updated_at) "
        "SELECT unnest($1::text[]), 'k', '{}', 1, now(), now()",
        stored,
    )
