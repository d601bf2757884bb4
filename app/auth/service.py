"""Checking keys on every request, and issuing and revoking them."""

import time
from collections.abc import Sequence
from datetime import datetime

from app.auth import repository
from app.auth.access import OPEN, Access, Grant
from app.auth.errors import UnauthenticatedError
from app.auth.key_cache import CACHE_SECONDS, KeyCache
from app.auth.keys import ApiKey, Token
from app.auth.rates import UNLIMITED, Rates, RequestLimiter
from app.clock import Clock
from app.db import EVERYTHING, Database
from app.namespaces import to_stored


class Authenticator:
    """Turns the key of a request into what its holder may do."""

    def __init__(self, database: Database, clock: Clock, default_rates: Rates = UNLIMITED) -> None:
        self._database = database
        self._clock = clock
        self._default_rates = default_rates
        self._keys = KeyCache(database)
        self._limiter = RequestLimiter()
        self._closed_until = 0.0
        self._open_until = 0.0

    async def authenticate(self, text: str | None) -> Access:
        """Return the caller's access; raises UnauthenticatedError and RateLimitedError."""
        if await self._is_open():
            return OPEN
        if not text:
            raise UnauthenticatedError(
                "This server needs an API key: send it as `x-api-key: mk_…` "
                "or `Authorization: Bearer mk_…`. `memoryd keys create` makes one."
            )
        token = Token.parse(text)
        if token is None:
            raise UnauthenticatedError(
                "The key that was sent is not one of this server's, which look like "
                "mk_<id>_<secret>. The LangGraph SDK sends LANGGRAPH_API_KEY, LANGSMITH_API_KEY or "
                "LANGCHAIN_API_KEY from the environment when it is given no api_key."
            )
        key = self._check(await self._keys.find(token.id), token)
        rates = key.rates.or_default(self._default_rates)
        access = key.access(rates.jobs)
        if rates.requests is not None:
            self._limiter.take(access.actor, rates.requests)
        return access

    def _check(self, key: ApiKey | None, token: Token) -> ApiKey:
        if key is None or not key.opens_for(token):
            raise UnauthenticatedError("The API key is unknown; check it for a typing error.")
        if key.revoked_at is not None:
            raise UnauthenticatedError(f"The API key mk_{key.id} was revoked; use another.")
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise UnauthenticatedError(
                f"The API key mk_{key.id} expired at {key.expires_at.isoformat()}; use another."
            )
        return key

    async def _is_open(self) -> bool:
        moment = time.monotonic()
        if moment < self._closed_until:
            return False
        if moment < self._open_until:
            return True
        async with self._database.connection(EVERYTHING) as connection:
            closed = await repository.exist(connection)
        if closed:
            self._closed_until = float("inf")  # keys are revoked, never deleted
        else:
            self._open_until = moment + CACHE_SECONDS
        return not closed


class KeyService:
    """Issues, lists and revokes keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> datetime:
        """Return the present moment by the clock that decides whether keys have expired."""
        return self._clock.now()

    async def create(
        self,
        name: str,
        *,
        root: Sequence[str],
        grants: tuple[Grant, ...],
        expires_at: datetime | None,
        rates: Rates = UNLIMITED,
    ) -> Token:
        """Create a key; the returned token is the only time its secret is seen."""
        token = Token.generate()
        key = ApiKey(
            id=token.id,
            name=name,
            secret_hash=token.secret_hash,
            root=to_stored(root),
            grants=grants,
            created_at=self._clock.now(),
            expires_at=expires_at,
            revoked_at=None,
            rates=rates,
        )
        async with self._database.transaction(EVERYTHING) as connection:
            await repository.insert(connection, key)
        return token

    async def list(self) -> list[ApiKey]:
        """Return every key, oldest first."""
        async with self._database.connection(EVERYTHING) as connection:
            return await repository.find_all(connection)

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key for good; False when there is none of that id."""
        async with self._database.transaction(EVERYTHING) as connection:
            return await repository.revoke(connection, key_id, self._clock.now())

    async def any_exist(self) -> bool:
        """Tell whether any key was ever created."""
        async with self._database.connection(EVERYTHING) as connection:
            return await repository.exist(connection)
