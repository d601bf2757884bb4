"""Issuing, listing, and revoking API keys."""

from collections.abc import Sequence
from datetime import datetime

import structlog

from app.auth import repository
from app.auth.access import UNLIMITED, ApiKey, Grant, Rates, Token, grants_text
from app.clock import Clock
from app.db.database import ALL_ROOTS, Database
from app.namespaces import to_root

_logger = structlog.get_logger("memoryd.auth")


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
        """Return whether any key was ever created."""
        async with self._database.connection(ALL_ROOTS) as connection:
            return await repository.exist(connection)
