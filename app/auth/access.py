"""Keys, grants, and access: who may do what in which namespaces."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Self

from typing_extensions import override

from app.auth.errors import ForbiddenError
from app.namespaces import (
    ALL_ROOTS,
    Labels,
    Range,
    Root,
    StoredNamespace,
    from_stored,
    stored_range,
    to_stored,
)


class Verb(StrEnum):
    """An action that a grant allows below its prefix."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    JOBS = "jobs"
    ADMIN = "admin"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission for some verbs at and below a prefix (labels relative to the key's root)."""

    prefix: tuple[str, ...]
    verbs: frozenset[Verb]

    def covers(self, labels: Sequence[str], verb: Verb) -> bool:
        """Return whether `verb` is granted on `labels`."""
        return verb in self.verbs and tuple(labels[: len(self.prefix)]) == self.prefix

    def below(self, labels: Sequence[str]) -> "Grant | None":
        """Return the part of the grant that applies below `labels`, relative to them."""
        if tuple(labels[: len(self.prefix)]) == self.prefix:
            return Grant((), self.verbs)
        if self.prefix[: len(labels)] == tuple(labels):
            return Grant(self.prefix[len(labels) :], self.verbs)
        return None


def grants_text(grants: Iterable[Grant]) -> str:
    """Return grants in the command line's notation, such as `read,write:users`."""
    return " ".join(
        f"{','.join(sorted(grant.verbs))}:{'.'.join(grant.prefix) or '*'}" for grant in grants
    )


ALL_GRANTED = (Grant((), frozenset(Verb) - {Verb.METRICS}),)
"""Everything below a root but metrics: they cover all keys, so they must be granted by name."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of one caller; `root` is a stored namespace that confines it."""

    actor: str
    root: Root
    grants: tuple[Grant, ...]
    jobs_per_minute: int | None = None

    def allows(self, labels: Sequence[str], verb: Verb) -> bool:
        """Return whether some grant gives a verb on a caller's labels."""
        return any(grant.covers(labels, verb) for grant in self.grants)

    def authorize(self, labels: Labels, verb: Verb) -> StoredNamespace:
        """Return the stored namespace for a caller's labels; ForbiddenError without a grant."""
        if not self.allows(labels, verb):
            raise ForbiddenError(self.actor, verb, list(labels))
        return to_stored(labels, self.root)

    def require(self, namespace: StoredNamespace, verb: Verb) -> None:
        """Raise ForbiddenError unless the caller has a verb on a stored namespace."""
        labels = self.relative(namespace)
        if not (namespace.startswith(self.root) and self.allows(labels, verb)):
            raise ForbiddenError(self.actor, verb, labels)

    def scope(self, labels: Labels, verb: Verb) -> Range:
        """Return the range of stored namespaces at or below a caller's labels."""
        return stored_range(self.authorize(labels, verb))

    def may(self, verb: Verb) -> bool:
        """Return whether some grant gives a verb anywhere."""
        return any(verb in grant.verbs for grant in self.grants)

    def below(self, labels: Labels) -> "Access":
        """Return the same caller confined to a namespace: labels are relative to it then."""
        grants = (grant.below(labels) for grant in self.grants)
        kept = tuple(grant for grant in grants if grant is not None)
        return replace(self, root=Root(to_stored(labels, self.root)), grants=kept)

    def relative(self, namespace: StoredNamespace) -> list[str]:
        """Return a stored namespace as the caller knows it: without its root."""
        return from_stored(namespace, self.root)


ANONYMOUS = Access(actor="anonymous", root=ALL_ROOTS, grants=(Grant((), frozenset(Verb)),))
"""Every caller, as long as no key was created and only this machine can connect."""


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
class Rates:
    """Limits per minute; None: no limit."""

    requests: int | None = None
    jobs: int | None = None

    def or_default(self, default: "Rates") -> "Rates":
        """Return these limits, with those of `default` for the missing ones."""
        return Rates(
            default.requests if self.requests is None else self.requests,
            default.jobs if self.jobs is None else self.jobs,
        )


UNLIMITED = Rates()


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
