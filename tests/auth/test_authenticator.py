"""Authentication: keys, their cache, and lookups."""

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


async def test_without_keys_everyone_is_anonymous(authenticator: Authenticator) -> None:
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


async def test_a_missing_key_is_refused_with_instructions(
    authenticator: Authenticator, token: Token
) -> None:
    for text in (None, ""):
        detail = await refusal(authenticator, text)
        assert "x-api-key" in detail
        assert "Authorization: Bearer" in detail
        assert "memoryd keys create" in detail


async def test_wrong_secrets_and_unknown_ids_are_refused_alike(
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


async def test_only_the_secret_reveals_that_a_key_was_revoked(
    keys: KeyService, authenticator: Authenticator, token: Token
) -> None:
    assert await keys.revoke(token.id)
    assert "needs an API key" in await refusal(authenticator, None)
    assert "was revoked" in await refusal(authenticator, str(token))
    assert "unknown" in await refusal(authenticator, f"mk_{token.id}_wrong")


async def test_keys_are_listed_oldest_first_with_their_first_revocation(
    keys: KeyService, clock: FrozenClock, token: Token
) -> None:
    revoked_at = clock.now()
    assert await keys.revoke(token.id)
    clock.advance(timedelta(hours=1))
    await keys.create("second", root=["a"], grants=ALL_GRANTED, expires_at=None)
    assert await keys.revoke(token.id)
    assert not await keys.revoke("0" * 12)
    listed = [(key.name, key.revoked_at, key.grants) for key in await keys.list()]
    assert listed == [("first", revoked_at, ALL_GRANTED), ("second", None, ALL_GRANTED)]


class Watch:
    """A monotonic clock that a test moves."""

    seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


async def test_what_is_cached_is_read_again_in_time(
    keys: KeyService, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    monkeypatch.setattr("app.auth.authenticator.time", watch)
    assert await authenticator.authenticate(None) is ANONYMOUS
    token = await keys.create("first", root=[], grants=ALL_GRANTED, expires_at=None)
    assert await authenticator.authenticate(None) is ANONYMOUS
    watch.seconds += CACHE_SECONDS
    assert "needs an API key" in await refusal(authenticator, None)
    await authenticator.authenticate(str(token))
    await keys.revoke(token.id)
    await authenticator.authenticate(str(token))  # still trusted: nothing is read per request
    watch.seconds += CACHE_SECONDS
    assert "was revoked" in await refusal(authenticator, str(token))


async def test_the_first_key_takes_effect_at_once(
    keys: KeyService, authenticator: Authenticator
) -> None:
    assert await authenticator.authenticate(None) is ANONYMOUS
    token = await keys.create("first", root=["acme"], grants=ALL_GRANTED, expires_at=None)
    assert (await authenticator.authenticate(str(token))).root == to_stored(["acme"])
    assert "needs an API key" in await refusal(authenticator, None)


class Lookups:
    """A stand-in for the database: one key exists, and lookups end when they are released."""

    def __init__(self, key_id: str, columns: dict[str, Any]) -> None:
        self.queries: list[list[str]] = []
        self.released = asyncio.Event()
        self.released.set()
        self._columns = {"id": key_id, **columns}

    @asynccontextmanager
    async def connection(self, _root: str) -> AsyncIterator[Any]:
        yield self

    async def fetchval(self, _sql: str) -> bool:
        return True

    async def fetch(self, _sql: str, key_ids: list[str]) -> list[dict[str, Any]]:
        self.queries.append(key_ids)
        await self.released.wait()
        return [self._columns] if self._columns["id"] in key_ids else []


class TestLookups:
    @pytest.fixture
    def token(self) -> Token:
        return Token.generate()

    @pytest.fixture
    def lookups(self, token: Token) -> Lookups:
        created_at = datetime(2026, 1, 1, tzinfo=UTC)
        columns: dict[str, Any] = {"name": "", "root": "", "grants": "[]", "created_at": created_at}
        absent = ("expires_at", "revoked_at", "requests_per_minute", "jobs_per_minute")
        columns |= dict.fromkeys(absent)
        return Lookups(token.id, {"secret_hash": token.secret_hash, **columns})

    @pytest.fixture
    def authenticator(self, lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> Authenticator:
        """An authenticator that forgets nothing during a test, however slow the machine is."""
        monkeypatch.setattr("app.auth.authenticator.CACHE_SECONDS", 3600.0)
        return Authenticator(cast(Database, lookups), SystemClock())

    async def test_invented_ids_fill_no_memory_and_evict_no_real_key(
        self, lookups: Lookups, authenticator: Authenticator, token: Token
    ) -> None:
        await authenticator.authenticate(str(token))
        for _ in range(3):
            await refusal(authenticator, "mk_a_x")
        assert lookups.queries == [[token.id], ["a"]]
        for number in range(10_000):
            await refusal(authenticator, f"mk_{number:x}0_x")
        await refusal(authenticator, "mk_a_x")
        assert lookups.queries.count(["a"]) == 2, "invented ids must not fill the memory"
        await authenticator.authenticate(str(token))
        assert lookups.queries.count([token.id]) == 1

    async def test_one_query_at_a_time_reads_all_pending_ids(
        self, lookups: Lookups, authenticator: Authenticator, token: Token
    ) -> None:
        lookups.released.clear()
        refused = [
            asyncio.create_task(refusal(authenticator, f"mk_{number:x}_x")) for number in range(500)
        ]
        await asyncio.sleep(0.01)
        real = asyncio.create_task(authenticator.authenticate(str(token)))
        await asyncio.sleep(0.01)
        lookups.released.set()
        assert (await real).actor == f"mk_{token.id}"
        assert {"is unknown" in text for text in await asyncio.gather(*refused)} == {True}
        assert len(lookups.queries) <= 3
