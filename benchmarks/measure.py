"""Run calls from several concurrent callers and report their times."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Call: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Timing:
    """The number of calls, their total seconds, and each call's seconds."""

    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        """Calls per second over all callers."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Latency in milliseconds that `percent` of the calls did not exceed."""
        return float(np.percentile(self.latencies, percent)) * 1000


async def run(calls: Iterable[Call], callers: int) -> Timing:
    """Make every call once, `callers` of them at a time."""
    waiting = iter(calls)
    latencies: list[float] = []
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(_caller(waiting, latencies))
    return Timing(time.perf_counter() - began, latencies)


async def _caller(waiting: Iterator[Call], latencies: list[float]) -> None:
    for call in waiting:
        began = time.perf_counter()
        await call()
        latencies.append(time.perf_counter() - began)


def table(rows: list[list[str]]) -> str:
    """Format rows in columns; the first row is the heading, and numbers are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
