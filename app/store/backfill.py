"""Backfill: makes the passages that items lack in an index, while clients write."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from asyncpg import Record

from app.db.database import ALL_ROOTS
from app.indexing.errors import EmbeddingFailedError, InvalidIndexPathError
from app.indexing.passages import Passage
from app.namespaces import StoredNamespace
from app.providers.embeddings.base import Vector
from app.providers.errors import BadRequestError
from app.resources import Resources
from app.store import repository
from app.store.repository import ItemPassages
from app.store.types import Address

_FIRST = Address(StoredNamespace(""), "")
"""Sorts before every address."""

_PASS_ITEMS = 100
_WRITTEN_PASSAGES = 1_000
"""Passages that one transaction writes before it ends; writers of its items wait for it."""

_PASSES = 5
"""Maximum passes of one backfill: servers with another configuration may write faster."""

# Writing an item removes its passages in every index but the writer's own. So an item without
# passages is made again, and one whose text gives none is tried in every run. LATERAL with its
# limit keeps the planner from reading all passages of the index for each batch, as with EXISTS.
_NEXT = f"""
SELECT namespace, key, id, version, index_paths,
    CASE WHEN present.ordinal IS NULL THEN value END AS value
FROM (
    SELECT * FROM items WHERE (namespace, key) > ($1, $2)
    ORDER BY namespace, key LIMIT {_PASS_ITEMS}
) AS walked
LEFT JOIN LATERAL (
    SELECT ordinal FROM passages WHERE passages.namespace = walked.namespace
        AND passages.key = walked.key AND passages.index_id = $3 LIMIT 1
) AS present ON true
ORDER BY namespace, key
"""

_VECTORS_OF_SAME_MODEL = """
SELECT text, passages.embedding
FROM unnest($1::text[], $2::text[]) AS wanted (namespace, key)
JOIN passages USING (namespace, key)
JOIN passage_indexes same ON same.id = passages.index_id
JOIN passage_indexes mine ON mine.id = $3 AND mine.id <> same.id
    AND (mine.embedding, mine.dimensions) = (same.embedding, same.dimensions)
WHERE passages.embedding IS NOT NULL
"""

_MAY_LACK = """
SELECT active AND EXISTS (SELECT FROM passage_indexes other WHERE other.id <> mine.id)
FROM passage_indexes mine WHERE id = $1
"""


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
        position = _FIRST
        walked = found = 0
        while rows := await self._next(position):
            position = Address(rows[-1]["namespace"], rows[-1]["key"])
            items = [item for row in rows if row["value"] and (item := await self._cut(row))]
            for some in _portions(items):
                await self._write(await self._embed(some))
            walked += len(rows)
            found += len(items)
            self._on_progress(walked)
        return found

    async def _next(self, position: Address) -> list[Record]:
        async with self._database.connection(ALL_ROOTS) as connection:
            return await connection.fetch(_NEXT, *position, self._index.id)

    async def _cut(self, row: Record) -> _Item | None:
        await asyncio.sleep(0)  # a server that runs this answers requests in between
        address = Address(row["namespace"], row["key"])
        if address in self.refused:
            return None
        paths = None if row["index_paths"] is None else json.loads(row["index_paths"])
        try:
            passages = await self._index.cut(json.loads(row["value"]), paths)
        except InvalidIndexPathError as error:
            self.refused[address] = error.detail
            return None
        if not passages:
            return None
        return _Item(address, row["id"], row["version"], passages)

    async def _embed(self, items: Sequence[_Item]) -> list[tuple[_Item, list[Vector | None]]]:
        """Return items with their passages' vectors, without those that the model refuses."""
        known = await self._known_vectors(items)
        # Each item is a request of its own, so that one refused text does not fail the others.
        embedded = await asyncio.gather(*(self._embed_one(item, known) for item in items))
        return [
            (item, vectors)
            for item, vectors in zip(items, embedded, strict=True)
            if vectors is not None
        ]

    async def _known_vectors(self, items: Sequence[_Item]) -> dict[str, Vector | None]:
        """Return the vectors that the same model made of these texts for another vocabulary."""
        namespaces, keys = zip(*(item.address for item in items), strict=True)
        async with self._database.connection(ALL_ROOTS) as connection:
            rows = await connection.fetch(
                _VECTORS_OF_SAME_MODEL, list(namespaces), list(keys), self._index.id
            )
        return {row["text"]: row["embedding"].to_numpy().astype(np.float32) for row in rows}

    async def _embed_one(
        self, item: _Item, known: Mapping[str, Vector | None]
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
        if not await connection.fetchval(_MAY_LACK, resources.index.id):
            return 0
    backfill = Backfill(resources, on_progress=lambda _walked: None)
    await backfill.run()
    return backfill.indexed
