"""Batches that the callers of an embedder share, with deduplication and a cache of results."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from cachetools import LRUCache

from app.providers.embeddings.base import Embedder, Vector
from app.providers.errors import BadRequestError, UnavailableError

_BATCH_TEXTS = 128
_CACHED_CHARACTERS = 2_000
"""Maximum length of a cached text; longer ones are rarely embedded twice."""


@dataclass(eq=False, slots=True)
class _Work:
    """A text to embed; the outcome is a value, so that asyncio reports no unretrieved error."""

    text: str
    outcome: "asyncio.Future[Vector | BaseException]"
    callers: set[int] = field(default_factory=set)
    taken: bool = False


class BatchingEmbedder:
    """Wraps an embedder; results are the same, with fewer and fuller calls.

    There are two lanes, one for urgent texts and one for bulk. Each has one call in progress; texts
    that arrive during it form the next batch. A text in progress is embedded once, however
    many callers need it, and the last `cache_entries` results are cached.
    """

    def __init__(self, inner: Embedder, *, cache_entries: int = 10_000) -> None:
        self._inner = inner
        self._cache: LRUCache[str, Vector] = LRUCache(cache_entries)
        self._works: dict[str, _Work] = {}
        self._lanes: dict[bool, deque[_Work]] = {True: deque(), False: deque()}
        self._runners: dict[bool, asyncio.Task[None]] = {}
        self._callers = count()
        self._closed = False

    @property
    def name(self) -> str:
        """The wrapped embedder's name."""
        return self._inner.name

    @property
    def dimensions(self) -> int:
        """The wrapped embedder's dimensions."""
        return self._inner.dimensions

    async def warm_up(self, *, load: bool = True) -> None:
        """Warm up the wrapped embedder."""
        await self._inner.warm_up(load=load)

    def split(self, text: str) -> list[str]:
        """Split as the wrapped embedder does."""
        return self._inner.split(text)

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> list[Vector]:
        """Return one vector a text; the vectors are shared and read-only."""
        if self._closed:
            raise UnavailableError(f"{self.name} is closed; start the server again")
        known = {
            text: vector for text in set(texts) if (vector := self._cache.get(text)) is not None
        }
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(await self._join(missing, urgent=urgent))
        return [known[text] for text in texts]

    async def aclose(self) -> None:
        """Stop; pending calls fail with UnavailableError. Closes the wrapped embedder too."""
        self._closed = True
        runners = list(self._runners.values())
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)
        error = UnavailableError(f"{self.name} was closed; start the server again")
        for work in list(self._works.values()):
            self._settle(work, error)
        await self._inner.aclose()

    async def _join(self, texts: list[str], *, urgent: bool) -> dict[str, Vector]:
        caller = next(self._callers)
        works = [self._enqueue(text, caller, urgent=urgent) for text in texts]
        if urgent not in self._runners and self._lanes[urgent]:
            self._runners[urgent] = asyncio.create_task(self._run_lane(urgent=urgent))
        try:
            await asyncio.wait([work.outcome for work in works])
        finally:
            for work in works:
                work.callers.discard(caller)
        vectors = {}
        for work in works:
            outcome = work.outcome.result()
            if isinstance(outcome, BaseException):
                raise outcome
            vectors[work.text] = outcome
        return vectors

    def _enqueue(self, text: str, caller: int, *, urgent: bool) -> _Work:
        work = self._works.get(text)
        if work is None:
            work = _Work(text, asyncio.get_running_loop().create_future())
            self._works[text] = work
            self._lanes[urgent].append(work)
        elif urgent and not work.taken:
            self._lanes[urgent].append(work)
        work.callers.add(caller)
        return work

    async def _run_lane(self, *, urgent: bool) -> None:
        try:
            while batch := self._next_batch(self._lanes[urgent]):
                await self._embed(batch, urgent=urgent)
        finally:
            del self._runners[urgent]

    def _next_batch(self, lane: "deque[_Work]") -> list[_Work]:
        batch: list[_Work] = []
        while lane and len(batch) < _BATCH_TEXTS:
            work = lane.popleft()
            if work.taken:
                continue
            work.taken = True
            if work.callers:
                batch.append(work)
            else:
                self._settle(
                    work, UnavailableError("the callers that needed this text were cancelled")
                )
        return batch

    async def _embed(self, batch: list[_Work], *, urgent: bool) -> None:
        call = asyncio.create_task(self._call([work.text for work in batch], urgent=urgent))
        try:
            await asyncio.wait([call])
        finally:
            call.cancel()
        if (error := call.exception()) is None:
            for work, vector in zip(batch, call.result(), strict=True):
                self._settle(work, vector)
        elif isinstance(error, BadRequestError) and _has_several_callers(batch):
            # One caller's bad text must not fail the others: halves find it quickly.
            middle = len(batch) // 2
            await self._embed(batch[:middle], urgent=urgent)
            await self._embed(batch[middle:], urgent=urgent)
        else:
            for work in batch:
                self._settle(work, error)

    async def _call(self, texts: list[str], *, urgent: bool) -> list[Vector]:
        vectors = await self._inner.embed(texts, urgent=urgent)
        if len(vectors) != len(texts):
            raise UnavailableError(
                f"{self.name} gave {len(vectors)} vectors for {len(texts)} texts"
            )
        return vectors

    def _settle(self, work: _Work, outcome: Vector | BaseException) -> None:
        del self._works[work.text]
        work.outcome.set_result(outcome)
        if isinstance(outcome, BaseException):
            return
        outcome.setflags(write=False)
        if len(work.text) <= _CACHED_CHARACTERS:
            self._cache[work.text] = outcome


def _has_several_callers(batch: list[_Work]) -> bool:
    return len(batch) > 1 and len(set().union(*(work.callers for work in batch))) > 1
