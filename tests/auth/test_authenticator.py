import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from app.auth.access import ALL_GRANTED, ANONYMOUS, Access, Grant, Token, Verb
from app.auth.authenticator import CACHE_SECONDS, Authenticator
from app.auth.errors import UnauthenticatedError
from app.auth.service import KeyService
from app.clock import FrozenClock, SystemClock
from app.db.database import Database
from app.namespaces import to_root, to_stored


@pytest.fixture
def authenticator(database: Database, clock: FrozenClock) -> Authenticator:
    return Authenticator(database, clock)


@pytest.fixture
async def token(keys: KeyService) -> Token:
    return await keys.create("first", root=[], grants=ALL_GRANTED, expires_at=None)


async def refusal(authenticator: Authenticator, text: str | None) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        await authenticator.authenticate(text)
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}
    return refused.value.detail


async def test_everyone_may_enter_while_no_key_was_created(authenticator: Authenticator) -> None:
    for text in (None, "", "lsv2_pt_1", str(Token.generate())):
        assert await authenticator.authenticate(text) is ANONYMOUS


async def test_a_key_gives_what_was_granted(keys: KeyService, authenticator: Authenticator) -> None:
    grants = (
        Grant(("users",), frozenset({Verb.READ, Verb.WRITE})),
        Grant((), frozenset({Verb.JOBS})),
    )
    token = await keys.create("app", root=["tenants", "acme"], grants=grants, expires_at=None)
    found = await authenticator.authenticate(str(token))
    assert found == Access(f"mk_{token.id}", to_root(["tenants", "acme"]), grants)


async def test_no_key(authenticator: Authenticator, token: Token) -> None:
    for text in (None, ""):
        detail = await refusal(authenticator, text)
        assert "x-api-key" in detail
        assert "Authorization: Bearer" in detail
        assert "memoryd keys create" in detail


async def test_a_wrong_secret_and_an_unknown_id_cannot_be_told_apart(
    authenticator: Authenticator, token: Token
) -> None:
    wrong = await refusal(authenticator, f"mk_{token.id}_{Token.generate().secret}")
    unknown = await refusal(authenticator, str(Token.generate()))
    assert wrong == unknown == "The API key is unknown; check it for a typing error."


async def test_a_key_of_another_service_is_explained(
    authenticator: Authenticator, token: Token
) -> None:
    foreign = "lsv2_pt_0123456789abcdef_0123456789"
    detail = await refusal(authenticator, foreign)
    assert "mk_<id>_<secret>" in detail
    assert "LANGSMITH_API_KEY" in detail
    assert foreign not in detail


async def test_a_key_expires_with_the_clock(
    keys: KeyService, authenticator: Authenticator, clock: FrozenClock
) -> None:
    ends = clock.now() + timedelta(minutes=1)
    token = await keys.create("short", root=[], grants=ALL_GRANTED, expires_at=ends)
    await authenticator.authenticate(str(token))
    clock.advance(timedelta(minutes=1) - timedelta(microseconds=1))
    await authenticator.authenticate(str(token))
    clock.advance(timedelta(microseconds=1))
    detail = await refusal(authenticator, str(token))
    assert detail.startswith(f"The API key mk_{token.id} expired at 2026-01-01T12:01:00+00:00")


async def test_only_who_knows_the_secret_learns_that_a_key_was_revoked(
    keys: KeyService, authenticator: Authenticator, token: Token
) -> None:
    assert await keys.revoke(token.id)
    assert "was revoked" in await refusal(authenticator, str(token))
    assert "unknown" in await refusal(authenticator, f"mk_{token.id}_wrong")


async def test_a_revoked_key_still_closes_the_server(
    keys: KeyService, database: Database, token: Token
) -> None:
    await keys.revoke(token.id)
    fresh = Authenticator(database, SystemClock())
    assert "needs an API key" in await refusal(fresh, None)


async def test_revoking_keeps_the_first_date(
    keys: KeyService, clock: FrozenClock, token: Token
) -> None:
    revoked_at = clock.now()
    assert await keys.revoke(token.id)
    clock.advance(timedelta(hours=1))
    assert await keys.revoke(token.id)
    assert [key.revoked_at for key in await keys.list()] == [revoked_at]
    assert not await keys.revoke("0" * 12)


async def test_keys_are_listed_oldest_first(keys: KeyService, clock: FrozenClock) -> None:
    tokens = []
    for name in ("one", "two", "three"):
        tokens.append(await keys.create(name, root=["a"], grants=ALL_GRANTED, expires_at=None))
        clock.advance(timedelta(seconds=1))
    found = await keys.list()
    assert [(key.id, key.name) for key in found] == [
        (token.id, name) for token, name in zip(tokens, ("one", "two", "three"), strict=True)
    ]
    assert {key.grants for key in found} == {ALL_GRANTED}


@pytest.mark.slow
async def test_a_revocation_is_noticed_within_the_promised_time(
    keys: KeyService, authenticator: Authenticator, token: Token
) -> None:
    await authenticator.authenticate(str(token))
    await keys.revoke(token.id)
    await authenticator.authenticate(str(token))  # still trusted: nothing is read per request
    await asyncio.sleep(CACHE_SECONDS)
    assert "was revoked" in await refusal(authenticator, str(token))


@pytest.mark.slow
async def test_the_first_key_closes_a_running_server(
    keys: KeyService, authenticator: Authenticator
) -> None:
    assert await authenticator.authenticate(None) is ANONYMOUS
    token = await keys.create("first", root=[], grants=ALL_GRANTED, expires_at=None)
    await asyncio.sleep(CACHE_SECONDS)
    assert "needs an API key" in await refusal(authenticator, None)
    await authenticator.authenticate(str(token))


async def test_the_first_keys_requests_are_never_taken_for_anonymous_ones(
    keys: KeyService, authenticator: Authenticator
) -> None:
    assert await authenticator.authenticate(None) is ANONYMOUS
    token = await keys.create("first", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    assert (await authenticator.authenticate(str(token))).root == to_stored(["acme"])
    assert "needs an API key" in await refusal(authenticator, None)


class Lookups:
    """A stand-in for the database: one key exists, and lookups end when they are released."""

    def __init__(self, key_id: str, columns: dict[str, Any]) -> None:
        self.asked: list[list[str]] = []
        self.let_go = asyncio.Event()
        self.let_go.set()
        self._columns = {"id": key_id, **columns}

    @asynccontextmanager
    async def connection(self, _root: str) -> AsyncIterator[Any]:
        yield self

    async def fetchval(self, _sql: str) -> bool:
        return True

    async def fetch(self, _sql: str, key_ids: list[str]) -> list[dict[str, Any]]:
        self.asked.append(key_ids)
        await self.let_go.wait()
        return [self._columns] if self._columns["id"] in key_ids else []


class TestLookups:
    @pytest.fixture
    def token(self) -> Token:
        return Token.generate()

    @pytest.fixture
    def lookups(self, token: Token) -> Lookups:
        columns = {
            "name": "",
            "secret_hash": token.secret_hash,
            "root": "",
            "grants": "[]",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            "expires_at": None,
            "revoked_at": None,
            "requests_per_minute": None,
            "jobs_per_minute": None,
        }
        return Lookups(token.id, columns)

    @pytest.fixture
    def authenticator(self, lookups: Lookups) -> Authenticator:
        return Authenticator(cast(Database, lookups), SystemClock())

    async def test_made_up_ids_fill_no_memory_and_evict_no_real_key(
        self, lookups: Lookups, authenticator: Authenticator, token: Token
    ) -> None:
        await authenticator.authenticate(str(token))
        for _ in range(3):
            await refusal(authenticator, "mk_a_x")
        assert lookups.asked == [[token.id], ["a"]]
        for number in range(10_000):
            await refusal(authenticator, f"mk_{number:x}0_x")
        await refusal(authenticator, "mk_a_x")
        assert lookups.asked.count(["a"]) == 2, "made-up ids must not fill the memory"
        await authenticator.authenticate(str(token))
        assert lookups.asked.count([token.id]) == 1

    async def test_one_query_at_a_time_reads_all_ids_that_are_waited_for(
        self, lookups: Lookups, authenticator: Authenticator, token: Token
    ) -> None:
        lookups.let_go.clear()
        refused = [
            asyncio.create_task(refusal(authenticator, f"mk_{number:x}_x")) for number in range(500)
        ]
        await asyncio.sleep(0.01)
        real = asyncio.create_task(authenticator.authenticate(str(token)))
        await asyncio.sleep(0.01)
        lookups.let_go.set()
        assert (await real).actor == f"mk_{token.id}"
        assert {"is unknown" in text for text in await asyncio.gather(*refused)} == {True}
        assert len(lookups.asked) <= 3
