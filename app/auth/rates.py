"""Rate limits of keys: requests in each server process, jobs over all processes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.auth.errors import TooManyRequestsError

MINUTE = 60.0

_MOST_KEYS = 10_000


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


class RequestLimiter:
    """A token bucket for each key: full at first, refilled evenly over a minute."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, actor: str, per_minute: int) -> None:
        """Take a token for one request; raises TooManyRequestsError if there is none."""
        now = self._now()
        tokens, since = self._buckets.get(actor, (float(per_minute), now))
        tokens = min(per_minute, tokens + (now - since) * per_minute / MINUTE)
        if tokens < 1:
            wait = math.ceil((1 - tokens) * MINUTE / per_minute)
            raise TooManyRequestsError(actor, per_minute, "request", wait)
        if actor not in self._buckets and len(self._buckets) >= _MOST_KEYS:
            self._forget_idle(now)
        self._buckets[actor] = (tokens - 1, now)

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that are full again."""
        self._buckets = {
            actor: (tokens, since)
            for actor, (tokens, since) in self._buckets.items()
            if now - since < MINUTE
        }
