"""API keys: `mk_<id>_<secret>`, of which only a hash of the random secret is stored."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from typing_extensions import override

from app.auth.access import Access, Grant
from app.auth.rates import UNLIMITED, Rates
from app.namespaces import Root

_PREFIX = "mk"

# Wider than the tokens of `generate`, but short and plain: ids are queried, cached, and logged.
_TOKEN = re.compile(rf"{_PREFIX}_([0-9a-f]{{1,32}})_([\w-]{{1,128}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """The text a client sends, taken apart."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key of 256 random bits."""
        return cls(secrets.token_hex(6), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Take a key apart, or return None when it is not one of ours."""
        found = _TOKEN.fullmatch(text)
        return cls(found[1], found[2]) if found else None

    @override
    def __str__(self) -> str:
        return f"{_PREFIX}_{self.id}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        """SHA-256 of the secret; the secret is random, so a slow hash would add nothing."""
        return hashlib.sha256(self.secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored."""

    id: str
    name: str
    secret_hash: bytes
    root: Root
    grants: tuple[Grant, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rates: Rates = UNLIMITED

    def opens_for(self, token: Token) -> bool:
        """Return, in constant time, whether the token's secret is this key's."""
        return hmac.compare_digest(self.secret_hash, token.secret_hash)

    def access(self, jobs_per_minute: int | None = None) -> Access:
        """Return the access of the key's holder."""
        return Access(f"{_PREFIX}_{self.id}", self.root, self.grants, jobs_per_minute)
