"""Checking keys on every request, and issuing and revoking them."""

import time
from collections.abc import Sequence
from datetime import datetime

import structlog

from app.auth import repository
from app.auth.access import ANONYMOUS, Access, Grant, grants_text
from app.auth.errors import UnauthenticatedError
from app.auth.failures import FailureLog
from app.auth.key_cache import CACHE_SECONDS, KeyCache
from app.auth.keys import ApiKey, Token
from app.auth.rates import UNLIMITED, Rates, RequestLimiter
from app.clock import Clock
from app.db.database import ALL_ROOTS, Database
from app.namespaces import to_root

_logger = structlog.get_logger("memoryd.auth")


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
        self.failures = FailureLog()

    async def authenticate(self, text: str | None, *, counted: bool = True) -> Access:
        """Return the caller's access; raises UnauthenticatedError.

        If the request is counted toward the key's rate, also RateLimitedError.
        """
        if await self.is_open() and not await self._is_known(text):
            return ANONYMOUS
        if not text:
            raise UnauthenticatedError(
                "This server needs an API key: send it as `x-api-key: mk_…` "
                "or `Authorization: Bearer mk_…`. `memoryd keys create` makes one.",
                reason="no key",
            )
        token = Token.parse(text)
        if token is None:
            raise UnauthenticatedError(
                "The key that was sent is not one of this server's, which look like "
                "mk_<id>_<secret>. The LangGraph SDK sends LANGGRAPH_API_KEY, LANGSMITH_API_KEY or "
                "LANGCHAIN_API_KEY from the environment when it is given no api_key.",
                reason="not a key of memoryd",
            )
        key = self._check(await self._keys.find(token.id), token)
        rates = key.rates.or_default(self._default_rates)
        access = key.access(rates.jobs)
        if counted and rates.requests is not None:
            self._limiter.take(access.actor, rates.requests)
        return access

    async def _is_known(self, text: str | None) -> bool:
        """Tell whether a key exists that was created since the server was last found open.

        Its first request must not be answered as if it came without a key.
        """
        token = Token.parse(text or "")
        if token is None or await self._keys.find(token.id) is None:
            return False
        self._closed_until = float("inf")
        return True

    def _check(self, key: ApiKey | None, token: Token) -> ApiKey:
        if key is None or not key.opens_for(token):
            raise UnauthenticatedError(
                "The API key is unknown; check it for a typing error.",
                reason="unknown key" if key is None else "wrong secret",
                key_id=token.id,
            )
        if key.revoked_at is not None:
            raise UnauthenticatedError(
                f"The API key mk_{key.id} was revoked; use another.",
                reason="revoked key",
                key_id=key.id,
            )
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            raise UnauthenticatedError(
                f"The API key mk_{key.id} expired at {key.expires_at.isoformat()}; use another.",
                reason="expired key",
                key_id=key.id,
            )
        return key

    def remembered(self, text: str | None) -> Access | None:
        """Return the access that a key had when it was last read, without asking the database."""
        if self._open_until and not self._closed_until:
            return ANONYMOUS
        token = Token.parse(text or "")
        if token is None:
            return None
        try:
            return self._check(self._keys.remembered(token.id), token).access()
        except UnauthenticatedError:
            return None

    async def is_open(self) -> bool:
        """Tell whether no key was ever created."""
        moment = time.monotonic()
        if moment < self._closed_until:
            return False
        if moment < self._open_until:
            return True
        async with self._database.connection(ALL_ROOTS) as connection:
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
        """Return the time of the clock by which keys expire."""
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
            root=to_root(tuple(root)),
            grants=grants,
            created_at=self._clock.now(),
            expires_at=expires_at,
            revoked_at=None,
            rates=rates,
        )
        async with self._database.transaction(ALL_ROOTS) as connection:
            await repository.insert(connection, key)
        _logger.info(
            "key created",
            key=f"mk_{key.id}",
            name=name,
            root=list(root),
            grants=grants_text(grants),
            expires_at=expires_at and expires_at.isoformat(),
        )
        return token

    async def list(self) -> list[ApiKey]:
        """Return every key, oldest first."""
        async with self._database.connection(ALL_ROOTS) as connection:
            return await repository.find_all(connection)

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key for good; False when there is none of that id."""
        async with self._database.transaction(ALL_ROOTS) as connection:
            found = await repository.revoke(connection, key_id, self._clock.now())
        if found:
            _logger.info("key revoked", key=f"mk_{key_id}")
        return found

    async def any_exist(self) -> bool:
        """Tell whether any key was ever created."""
        async with self._database.connection(ALL_ROOTS) as connection:
            return await repository.exist(connection)
