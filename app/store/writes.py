"""Changes to items, prepared outside any transaction and applied in one."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from app.http.conditional import UNCONDITIONAL, Precondition
from app.indexing.indexer import Piece

Address = tuple[str, str]
"""Stored namespace and key."""


@dataclass(frozen=True, slots=True)
class Details:
    """What an item carries beside its value; `source` is JSON text."""

    importance: float | None = None
    pinned: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """The whole next state of an item; `value` is JSON text."""

    address: Address
    value: str
    pieces: list[Piece]
    index_paths: list[str] | None = None
    details: Details = field(default_factory=Details)
    ttl: timedelta | None = None
    action: Literal["put", "patch", "restore"] = "put"
    precondition: Precondition = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class Delete:
    """The end of an item."""

    address: Address
    precondition: Precondition = UNCONDITIONAL


Write = Put | Delete


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a put; `inserted` is false where a row was overwritten."""

    item_id: int
    version: int
    inserted: bool
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
