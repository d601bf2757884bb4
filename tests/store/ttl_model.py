"""What items with lifetimes should be like: a model in memory."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass
class Entry:
    """What one item should be like."""

    value: int
    ttl: timedelta | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int

    def alive(self, now: datetime) -> bool:
        return self.expires_at is None or self.expires_at > now


@dataclass
class Model:
    """Items by key, and every number that was used up."""

    entries: dict[str, Entry] = field(default_factory=dict)
    history: dict[str, list[tuple[str, datetime]]] = field(default_factory=dict)

    def visible(self, key: str, now: datetime) -> Entry | None:
        entry = self.entries.get(key)
        return entry if entry and entry.alive(now) else None

    def record(self, key: str, action: str, at: datetime) -> int:
        self.history.setdefault(key, []).append((action, at))
        return len(self.history[key])

    def bury(self, key: str, now: datetime) -> bool:
        """End an item that has expired by `now`."""
        entry = self.entries.get(key)
        if entry is None or entry.expires_at is None or entry.expires_at > now:
            return False
        self.record(key, "expire", entry.expires_at)
        del self.entries[key]
        return True

    def put(self, key: str, value: int, ttl: timedelta | None, now: datetime) -> None:
        self.bury(key, now)
        past = self.entries.get(key)
        self.entries[key] = Entry(
            value,
            ttl,
            now + ttl if ttl else None,
            past.created_at if past else now,
            now,
            self.record(key, "put", now),
        )

    def delete(self, key: str, now: datetime) -> None:
        if not self.bury(key, now) and key in self.entries:
            del self.entries[key]
            self.record(key, "delete", now)

    def refresh(self, key: str, now: datetime) -> None:
        entry = self.visible(key, now)
        if entry and entry.ttl:
            entry.expires_at = now + entry.ttl
