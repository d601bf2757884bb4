"""Time slices for long work on the event loop, so that other requests get their turn."""

import asyncio
import time

SLICE_SECONDS = 0.01


class TimeSlice:
    """The time for which one request may keep the event loop."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_SECONDS

    async def give_way(self) -> None:
        """Let others run if the slice is over."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_SECONDS
