"""Authentication: from the key of a request to the rights of its holder."""

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import copy_context

import structlog
from cachetools import LRUCache, TTLCache
from structlog.contextvars import get_contextvars, unbind_contextvars

from app.auth import repository
from app.auth.access import ANONYMOUS, UNLIMITED, Access, ApiKey, Rates, Token
from app.auth.errors import TooManyRequestsError, UnauthenticatedError
from app.clock import Clock
from app.db.database import ALL_ROOTS, Database

CACHE_SECONDS = 5.0
"""How long a process trusts what it read about a key: the delay of a revocation."""

_MAX_CACHED = 10_000

_MINUTE = 60.0

_MOST_KEYS = 10_000

FAILURE_WINDOW_SECONDS = 60.0
MAX_FAILURE_LINES = 20
"""Maximum lines per process and window; further failures are only counted."""

_logger = structlog.get_logger("memoryd.auth")


class Authenticator:
    """Turns the key of a request into the access of its holder."""

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

        If the request is counted toward the key's rate, also TooManyRequestsError.
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
        """Return whether a key exists that was created since the server was last found open.

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

    def last_known_access(self, text: str | None) -> Access | None:
        """Return the access that a key had when it was last read, without asking the database."""
        if self._open_until and not self._closed_until:
            return ANONYMOUS
        token = Token.parse(text or "")
        if token is None:
            return None
        try:
            return self._check(self._keys.last_known(token.id), token).access()
        except UnauthenticatedError:
            return None

    async def is_open(self) -> bool:
        """Return whether no key was ever created."""
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


class KeyCache:
    """Finds keys by their ids, in memory or in the database.

    One query at a time reads all pending ids, so made-up ids use one connection, not the whole
    pool. They are cached apart from real keys, which they cannot evict.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: LRUCache[str, tuple[float, ApiKey]] = LRUCache(_MAX_CACHED)
        self._missing: TTLCache[str, None] = TTLCache(_MAX_CACHED, CACHE_SECONDS)
        self._pending: dict[str, asyncio.Future[ApiKey | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> ApiKey | None:
        """Return the key with an id."""
        until, key = self._keys.get(key_id, (0.0, None))
        if key is not None and time.monotonic() < until:
            return key
        if key_id in self._missing:
            return None
        if key_id not in self._pending:
            self._pending[key_id] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return await asyncio.shield(self._pending[key_id])

    def last_known(self, key_id: str) -> ApiKey | None:
        """Return a key as it was last read, however long ago."""
        return self._keys.get(key_id, (0.0, None))[1]

    async def _read(self) -> None:
        while self._pending:
            requested, self._pending = self._pending, {}
            try:
                async with self._database.connection(ALL_ROOTS) as connection:
                    found = await repository.find_many(connection, list(requested))
            except Exception as error:  # noqa: BLE001  # raised to every waiting caller
                for future in requested.values():
                    future.set_exception(error)
                continue
            until = time.monotonic() + CACHE_SECONDS
            for key_id, future in requested.items():
                key = found.get(key_id)
                if key is None:
                    self._missing[key_id] = None
                else:
                    self._keys[key_id] = (until, key)
                future.set_result(key)


class RequestLimiter:
    """A token bucket for each key: full at first, refilled evenly over a minute."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, actor: str, per_minute: int) -> None:
        """Take a token for one request; raises TooManyRequestsError if there is none."""
        now = self._now()
        tokens, since = self._buckets.get(actor, (float(per_minute), now))
        tokens = min(per_minute, tokens + (now - since) * per_minute / _MINUTE)
        if tokens < 1:
            wait = math.ceil((1 - tokens) * _MINUTE / per_minute)
            raise TooManyRequestsError(actor, per_minute, "request", wait)
        if actor not in self._buckets and len(self._buckets) >= _MOST_KEYS:
            self._forget_idle(now)
        self._buckets[actor] = (tokens - 1, now)

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that are full again."""
        self._buckets = {
            actor: (tokens, since)
            for actor, (tokens, since) in self._buckets.items()
            if now - since < _MINUTE
        }


class FailureLog:
    """Logs refused logins, and the number of those it left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._window_ends = 0.0
        self._failures = 0

    def note(self, reason: str, key_id: str | None, client: str | None) -> None:
        """Log that a caller was refused; `key_id` is the key it sent, without the secret."""
        if self._now() >= self._window_ends:
            self._begin_window()
        self._failures += 1
        if self._failures <= MAX_FAILURE_LINES:
            key = None if key_id is None else f"mk_{key_id}"
            copy_context().run(_log, reason, key, client)

    def _begin_window(self) -> None:
        if self._failures > MAX_FAILURE_LINES:
            _logger.warning("more logins refused", count=self._failures - MAX_FAILURE_LINES)
        self._window_ends = self._now() + FAILURE_WINDOW_SECONDS
        self._failures = 0


def _log(reason: str, key: str | None, client: str | None) -> None:
    # `request_id` marks one line per request, the request's own, so this one uses another name.
    request = get_contextvars().get("request_id")
    unbind_contextvars("request_id")
    _logger.warning("login refused", reason=reason, key=key, client=client, request=request)
