"""Long work on the event loop, in slices: other requests get their turn between them."""

import asyncio
import time

SLICE_SECONDS = 0.01


class TimeSlice:
    """The time that one request may keep the event loop for itself."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE_SECONDS

    async def give_way(self) -> None:
        """Let others run if the slice is over."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + SLICE_SECONDS
