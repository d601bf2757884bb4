"""Time as a dependency, so that expiry and history can be tested without waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

LARGEST_OFFSET_SECONDS = 1.0
"""Beyond it, an operator should set the machine's clock."""

_TOLERANCE_SECONDS = 0.02
"""Smaller differences are noise; servers on one machine should agree to the microsecond."""

_RUNNING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A timer that cannot be set and includes time spent suspended."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's time, and when it was requested and received (`running_seconds`)."""

    database_seconds: float
    sent: float
    received: float


class Clock(Protocol):
    """Tells the time."""

    @property
    def offset_seconds(self) -> float:
        """Seconds that the machine's clock is ahead of the database's."""
        ...

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        ...

    def correct(self, reading: Reading) -> None:
        """Follow the database's clock."""
        ...


class SystemClock:
    """The machine's clock, corrected to the database's.

    Between readings it follows a timer that cannot be set. So nothing expires early on a machine
    whose clock is wrong, or is set while memoryd runs.
    """

    def __init__(self, machine_seconds: Callable[[], float] = time.time) -> None:
        self._machine_seconds = machine_seconds
        self._base = machine_seconds() - running_seconds()

    @property
    def offset_seconds(self) -> float:
        """Seconds that the machine's clock is ahead of the database's."""
        return self._machine_seconds() - running_seconds() - self._base

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.fromtimestamp(self._base + running_seconds(), UTC)

    def correct(self, reading: Reading) -> None:
        """Follow the database's clock if it differs by more than the reading's uncertainty."""
        read_at = (reading.sent + reading.received) / 2
        error = reading.database_seconds - read_at - self._base
        if abs(error) > max(reading.received - reading.sent, _TOLERANCE_SECONDS):
            self._base += error


class FrozenClock:
    """A clock that moves only when a test says so."""

    offset_seconds = 0.0

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        """Return the moment it stands at."""
        return self._at

    def correct(self, reading: Reading) -> None:
        """Ignore the database's clock."""

    def advance(self, by: timedelta) -> None:
        """Move forward."""
        self._at += by


def running_seconds() -> float:
    """Return the seconds of a timer that cannot be set."""
    return time.clock_gettime(_RUNNING)
