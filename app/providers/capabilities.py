"""The features that each served model refuses, and the limits that it states, kept in memory.

A process learns a restriction when a request is refused for it and passes without it. Restrictions
are forgotten after a week, because servers are updated. `app/capability_repository.py` shares them
among processes.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from app.clock import Clock, SystemClock

LIFETIME = timedelta(days=7)

_MAX_REASON = 300
_MAX_RESTRICTIONS = 10_000


@dataclass(frozen=True, slots=True, order=True)
class ServedModel:
    """A model at the address that serves it, which has no key or password in it."""

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class Restriction:
    """A feature that a model refuses, or a limit of it; `reason` is the provider's words."""

    model: ServedModel
    feature: str
    limit: int | None
    reason: str
    learned_at: datetime

    @property
    def key(self) -> "RestrictionKey":
        """The model and the feature, of which there is one restriction at most."""
        return self.model, self.feature


RestrictionKey: TypeAlias = tuple[ServedModel, str]
Changes: TypeAlias = dict[RestrictionKey, Restriction | None]
"""Restrictions that are not written yet; None: one to delete."""


class Capabilities:
    """The restrictions of all served models; call it from the event loop's thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._known: dict[RestrictionKey, Restriction] = {}
        self._changes: Changes = {}
        self._is_changed = asyncio.Event()

    @property
    def oldest(self) -> datetime:
        """The moment before which restrictions were learned that are forgotten now."""
        return self._clock.now() - LIFETIME

    def get(self, model: ServedModel, feature: str) -> Restriction | None:
        """Return the restriction of a feature of a model; None if there is none."""
        found = self._known.get((model, feature))
        return found if found is not None and self._is_recent(found) else None

    def refuses(self, model: ServedModel, feature: str) -> bool:
        """Return whether the model refuses the feature."""
        return self.get(model, feature) is not None

    def limit(self, model: ServedModel, feature: str) -> int | None:
        """Return the model's limit, if it is known."""
        found = self.get(model, feature)
        return None if found is None else found.limit

    def all(self) -> list[Restriction]:
        """Return every restriction, in the order of models and features."""
        recent = filter(self._is_recent, self._known.values())
        return sorted(recent, key=lambda restriction: restriction.key)

    def learn(
        self, model: ServedModel, feature: str, *, limit: int | None = None, reason: str = ""
    ) -> None:
        """Remember that the model refuses a feature, or its limit."""
        if len(self._known) >= _MAX_RESTRICTIONS:
            return
        now = self._clock.now()
        found = Restriction(model, feature, limit, reason[:_MAX_REASON], now)
        self._known[found.key] = found
        self._changes[found.key] = found
        self._is_changed.set()

    def forget(self, model: ServedModel | None = None, feature: str | None = None) -> int:
        """Forget one feature, or all, of one model, or of all; return how many were known."""
        forgotten = [
            key
            for key in self._known
            if model in {None, key[0]} and (feature is None or key[1] == feature)
        ]
        for key in forgotten:
            del self._known[key]
            self._changes[key] = None
        self._is_changed.set()
        return len(forgotten)

    def load(self, stored: Iterable[Restriction]) -> None:
        """Replace the known restrictions by the stored ones, except for unwritten changes."""
        self._known = {restriction.key: restriction for restriction in stored}
        self._apply(self._changes)

    async def wait_for_changes(self) -> None:
        """Wait until there is a change to write."""
        await self._is_changed.wait()

    def take_changes(self) -> Changes:
        """Remove and return the changes that are not written yet."""
        changes, self._changes = self._changes, {}
        self._is_changed.clear()
        return changes

    def put_back(self, changes: Mapping[RestrictionKey, Restriction | None]) -> None:
        """Add changes that could not be written."""
        self._changes = {**changes, **self._changes}
        self._is_changed.set()

    def _is_recent(self, restriction: Restriction) -> bool:
        return restriction.learned_at > self.oldest

    def _apply(self, changes: Changes) -> None:
        for key, change in changes.items():
            if change is None:
                self._known.pop(key, None)
            else:
                self._known[key] = change
