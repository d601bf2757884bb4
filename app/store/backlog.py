"""Embedding items later whose texts could not be embedded when they were put."""

import time
from typing import Self

import structlog

from app.clock import Clock
from app.db.database import ALL_ROOTS, Database
from app.indexing.passages import EmbeddingFailedError, PassageIndex
from app.providers.errors import ProviderError
from app.resources import Resources
from app.store import backlog_repository, repository
from app.store.types import Address

_ITEMS = 32
_PASSAGES = 2_000
"""Maximum passages of one round; an item has as many at most."""

_ROUNDS = 50
"""Maximum rounds of one run, after which the caller's other work is due."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
"""Seconds without attempts after the embedding server failed; each failure doubles them."""

_LONGEST_ASKED_PAUSE = 3_600.0
"""Seconds that the embedding server may ask to wait."""


_logger = structlog.get_logger("memoryd.embedding")


class EmbeddingBacklog:
    """Adds the vectors that items wait for.

    A text that the model fails on is tried again ever more rarely. If the whole server fails, all
    items stay due, and the attempts pause.
    """

    def __init__(self, database: Database, index: PassageIndex, clock: Clock) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._pause = 0.0
        self._resume_at = 0.0

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the backlog from a process's resources."""
        return cls(resources.database, resources.index, resources.clock)

    async def run(self) -> None:
        """Embed what is due."""
        if self._index.embedder is None or time.monotonic() < self._resume_at:
            return
        for _ in range(_ROUNDS):
            async with self._database.transaction(ALL_ROOTS) as connection:
                claimed = await backlog_repository.claim(
                    connection, self._index.id, _ITEMS, self._clock.now()
                )
            if not claimed:
                return
            outage = await self._embed(claimed)
            if outage is not None:
                self._pause = min(max(_SHORTEST_PAUSE, 2 * self._pause), _LONGEST_PAUSE)
                asked = min(outage.retry_after or 0, _LONGEST_ASKED_PAUSE)
                self._resume_at = time.monotonic() + max(self._pause, asked)
                return
            self._pause = 0.0

    async def _embed(self, claimed: list[Address]) -> ProviderError | None:
        """Embed items' passages; return the error of the server if all of it fails."""
        index_id = self._index.id
        async with self._database.connection(ALL_ROOTS) as connection:
            lacking = await backlog_repository.find_lacking(
                connection, claimed, index_id, _PASSAGES
            )
        embedded = await self._index.embed_each([passage.text for passage in lacking])
        pairs = list(zip(lacking, embedded, strict=True))
        errors = [(p.address, one) for p, one in pairs if isinstance(one, EmbeddingFailedError)]
        made = [
            (passage, one)
            for passage, one in pairs
            if one is not None and not isinstance(one, EmbeddingFailedError)
        ]
        failed = {address for address, _ in errors}
        due = {address for address, error in errors if not error.is_about_text}
        if len(lacking) == _PASSAGES:  # perhaps there are more
            due |= set(claimed) - failed
        async with self._database.transaction(ALL_ROOTS) as connection:
            now = self._clock.now()
            await repository.lock(connection, claimed, now)
            await backlog_repository.add_vectors(connection, made, index_id)
            await backlog_repository.settle(connection, claimed, index_id, now, due=due)
        _logger.info("embedded later", items=len(set(claimed) - failed), still_waiting=len(failed))
        outage = next((error.cause for _, error in errors if not error.is_about_text), None)
        if outage is not None:
            _logger.warning("embedding is put off", reason=str(outage))
        return outage
