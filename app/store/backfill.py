"""Backfill: makes the passages that items lack in an index, while clients write."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.db.database import ALL_ROOTS
from app.indexing.passages import EmbeddingFailedError, InvalidIndexPathError, Passage
from app.providers.embeddings.base import Vector
from app.providers.errors import BadRequestError
from app.resources import Resources
from app.store import reindex_repository, repository
from app.store.reindex_repository import WalkedItem
from app.store.repository import ItemPassages
from app.store.types import Address

_WRITTEN_PASSAGES = 1_000
"""Passages that one transaction writes before it ends; writers of its items wait for it."""

_PASSES = 5
"""Maximum passes of one backfill: servers with another configuration may write faster."""


@dataclass(frozen=True, slots=True)
class _Item:
    """An item as it was read; it may have been written again since."""

    address: Address
    item_id: int
    version: int
    passages: list[Passage]


class Backfill:
    """Fills a process's index; `refused` has the items that cannot be indexed, and why.

    `on_progress` is called with the number of items that a pass has read.
    """

    def __init__(self, resources: Resources, on_progress: Callable[[int], None]) -> None:
        self._database = resources.database
        self._clock = resources.clock
        self._index = resources.index
        self._on_progress = on_progress
        self.indexed = 0
        self.refused: dict[Address, str] = {}

    async def run(self) -> None:
        """Index every item that lacks passages, and those that lose them during the run.

        Raises EmbeddingFailedError if the model cannot go on; what is indexed by then stays.
        """
        for _ in range(_PASSES):
            if not await self._pass():
                return

    async def _pass(self) -> int:
        """Go through all items once; return how many lacked passages."""
        position = reindex_repository.FIRST
        walked = found = 0
        while read := await self._next(position):
            position = read[-1].address
            items = [item for one in read if one.value and (item := await self._cut(one))]
            for some in _portions(items):
                await self._write(await self._embed(some))
            walked += len(read)
            found += len(items)
            self._on_progress(walked)
        return found

    async def _next(self, position: Address) -> list[WalkedItem]:
        async with self._database.connection(ALL_ROOTS) as connection:
            return await reindex_repository.find_next(connection, position, self._index.id)

    async def _cut(self, item: WalkedItem) -> _Item | None:
        await asyncio.sleep(0)  # a server that runs this answers requests in between
        if item.address in self.refused:
            return None
        try:
            passages = await self._index.cut(json.loads(item.value or "{}"), item.index_paths)
        except InvalidIndexPathError as error:
            self.refused[item.address] = error.detail
            return None
        if not passages:
            return None
        return _Item(item.address, item.id, item.version, passages)

    async def _embed(self, items: Sequence[_Item]) -> list[tuple[_Item, list[Vector | None]]]:
        """Return items with their passages' vectors, without those that the model refuses."""
        addresses = [item.address for item in items]
        async with self._database.connection(ALL_ROOTS) as connection:
            known = await reindex_repository.find_vectors(connection, addresses, self._index.id)
        # Each item is a request of its own, so that one refused text does not fail the others.
        embedded = await asyncio.gather(*(self._embed_one(item, known) for item in items))
        return [
            (item, vectors)
            for item, vectors in zip(items, embedded, strict=True)
            if vectors is not None
        ]

    async def _embed_one(
        self, item: _Item, known: Mapping[str, Vector]
    ) -> list[Vector | None] | None:
        texts = [passage.text for passage in item.passages]
        missing = [text for text in texts if text not in known]
        try:
            vectors = dict(zip(missing, await self._index.embed(missing), strict=True))
        except EmbeddingFailedError as error:
            if not isinstance(error.__cause__, BadRequestError):
                raise
            self.refused[item.address] = str(error.__cause__)
            return None
        return [vectors[text] if text in vectors else known[text] for text in texts]

    async def _write(self, made: Sequence[tuple[_Item, list[Vector | None]]]) -> None:
        """Write the passages of the items that have not changed since they were read."""
        addresses = [item.address for item, _ in made]
        async with self._database.transaction(ALL_ROOTS) as connection:
            locked = await repository.lock(connection, addresses, self._clock.now())
            versions = {address: found.version for address, found in locked.items()}
            current = [
                (item, vectors)
                for item, vectors in made
                if versions.get(item.address) == item.version
            ]
            await repository.replace_passages(
                connection,
                [
                    ItemPassages(item.address, item.item_id, item.passages, vectors)
                    for item, vectors in current
                ],
                self._index.id,
                keep_other_indexes=True,
            )
        self.indexed += len(current)


def _portions(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    portion: list[_Item] = []
    passages = 0
    for item in items:
        portion.append(item)
        passages += len(item.passages)
        if passages >= _WRITTEN_PASSAGES:
            yield portion
            portion, passages = [], 0
    if portion:
        yield portion


async def catch_up(resources: Resources) -> int:
    """Index items written by servers with another configuration; return their number.

    Does so for the active index only: others are going out of use, or being filled.
    """
    async with resources.database.connection(ALL_ROOTS) as connection:
        if not await reindex_repository.may_lack_passages(connection, resources.index.id):
            return 0
    backfill = Backfill(resources, on_progress=lambda _walked: None)
    await backfill.run()
    return backfill.indexed
