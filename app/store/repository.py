"""SQL that reads and writes items, their history, and their passages, on a caller's connection."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from pgvector import HalfVector

from app.db.database import ALL_ROOTS, Connection, Database, Row
from app.indexing.passages import Passage
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate, Precision
from app.providers.embedder import Vector
from app.store.types import (
    Address,
    Item,
    ItemMetadata,
    PreparedPut,
    PutResult,
)

METADATA = {
    "importance": "float8",
    "pinned": "bool",
    "valid_from": "timestamptz",
    "valid_from_precision": "text",
    "valid_to": "timestamptz",
    "valid_to_precision": "text",
    "said_first": "timestamptz",
    "said_last": "timestamptz",
    "source_class": "text",
    "source": "jsonb",
    "questions": "jsonb",
}
"""The columns of an item's metadata, with the types of their parameters."""

METADATA_COLUMNS = ", ".join(METADATA)
"""The columns that `read_metadata` takes."""

COLUMNS = (
    f"id, namespace, key, value, version, index_paths, {METADATA_COLUMNS}, ttl, expires_at, "
    "created_at, updated_at, embed_after, stale"
)
"""The columns that `read_item` takes."""

SWEEPER = "memoryd"
"""Actor that the history names for expirations."""

FIRST_WAIT = timedelta(seconds=5)
"""Time until a text that could not be embedded is tried again."""

SWEPT_ITEMS = 500
"""Expired items removed in one transaction; it never waits for a writer."""

_FIND = f"""
SELECT {COLUMNS} FROM items
WHERE namespace = $1 AND key = $2 AND ($4 OR expires_at IS NULL OR expires_at > $3)
"""

_FIND_MANY = f"""
SELECT {COLUMNS} FROM items
JOIN unnest($1::text[], $2::text[]) AS wanted (namespace, key) USING (namespace, key)
WHERE expires_at IS NULL OR expires_at > $3
"""

# An item fits if those before it leave any room, however large it is, so one always fits.
_FIND_FITTING = f"""
SELECT {COLUMNS.replace(" value,", " CASE WHEN fits THEN value END AS value,")}, fits
FROM (
    SELECT items.*,
        sum(value_bytes) OVER (ORDER BY place) - value_bytes < $4::bigint AS fits
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (namespace, key, place)
    JOIN items USING (namespace, key)
    WHERE expires_at IS NULL OR expires_at > $3
) AS found
"""

# Rows are locked in the order in which every writer locks them, or readers would deadlock.
_HOLD = """
SELECT namespace, key FROM items
JOIN unnest($1::text[], $2::text[]) AS wanted (namespace, key) USING (namespace, key)
WHERE expires_at > $3 ORDER BY namespace, key FOR NO KEY UPDATE OF items
"""

# Runs after the lock, in a statement of its own. In the same one it would come to a row by the
# version that it saw at its beginning, and wait there for another reader, who waits for the lock.
_REFRESH = """
UPDATE items SET expires_at = $3 + ttl
FROM unnest($1::text[], $2::text[]) AS wanted (namespace, key)
WHERE items.namespace = wanted.namespace AND items.key = wanted.key AND expires_at > $3
"""

_LOCK = """
SELECT namespace, key, version, expires_at <= $3 AS expired FROM items
JOIN unnest($1::text[], $2::text[]) AS wanted (namespace, key) USING (namespace, key)
ORDER BY namespace, key FOR UPDATE OF items
"""

_QUEUE = """
SELECT pg_advisory_xact_lock(number) FROM (
    SELECT DISTINCT hashtextextended(namespace, 0) AS number
    FROM unnest($1::text[]) AS t (namespace) ORDER BY number
) AS numbers
"""

_RESTS_ON = """
items.namespace = {source}.namespace AND items.derived AND NOT items.stale
    AND items.source -> 'memory_keys' ? {source}.key
"""
"""The condition that an item rests on another, and is not marked as stale yet."""

# A deleted item's history goes on where it ended, so a version number is never used twice.
# Overwriting what has expired records that end first, as the sweeper would have.
_UPSERT = f"""
WITH input AS (
    SELECT * FROM unnest(
        $5::text[], $6::text[], $7::text[], $8::text[], $9::interval[], $10::text[], $11::bool[],
        {", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(METADATA.values(), 12))}
    ) AS t (namespace, key, value, index_paths, ttl, action, waits, {METADATA_COLUMNS})
), expired AS (
    SELECT id, namespace, key, version, expires_at FROM items JOIN input USING (namespace, key)
    WHERE expires_at <= $2
), unused AS (
    DELETE FROM item_usage USING expired
    WHERE item_usage.namespace = expired.namespace AND item_usage.item_id = expired.id
), spaces AS (
    INSERT INTO namespaces (namespace)
    SELECT namespace FROM input GROUP BY namespace ORDER BY namespace COLLATE "C"
    ON CONFLICT DO NOTHING
), written AS (
    INSERT INTO items AS present (
        namespace, key, value, version, index_paths, {METADATA_COLUMNS},
        ttl, expires_at, created_at, updated_at, embed_after
    )
    SELECT namespace, key, value::jsonb, 1 + coalesce((
            SELECT max(past.version) FROM item_versions past
            WHERE past.namespace = input.namespace AND past.key = input.key
        ), 0), index_paths::jsonb, {METADATA_COLUMNS},
        ttl, $2::timestamptz + ttl, $2, $2, CASE WHEN waits THEN $2 + $4::interval END
    FROM input ORDER BY namespace COLLATE "C", key COLLATE "C"
    ON CONFLICT (namespace, key) DO UPDATE SET
        value = excluded.value,
        version = present.version + CASE WHEN present.expires_at <= $2 THEN 2 ELSE 1 END,
        index_paths = excluded.index_paths,
        {", ".join(f"{column} = excluded.{column}" for column in METADATA)},
        ttl = excluded.ttl, expires_at = excluded.expires_at, updated_at = excluded.updated_at,
        embed_after = excluded.embed_after, stale = false,
        created_at = CASE WHEN present.expires_at <= $2
            THEN excluded.created_at ELSE present.created_at END
    RETURNING id, namespace, key, version, value, index_paths, {METADATA_COLUMNS},
        created_at, updated_at, expires_at, xmax = 0 AS inserted
), history AS (
    INSERT INTO item_versions (
        namespace, key, version, action, actor, recorded_at, value, index_paths,
        {METADATA_COLUMNS}
    )
    SELECT namespace, key, version, input.action, $1, $2, written.value, written.index_paths,
        {", ".join(f"written.{column}" for column in METADATA)}
    FROM written JOIN input USING (namespace, key)
    UNION ALL
    SELECT namespace, key, expired.version + 1, 'expire', $3, expired.expires_at, NULL, NULL,
        {", ".join("NULL" for _ in METADATA)}
    FROM written JOIN expired USING (namespace, key) WHERE written.version = expired.version + 2
), derived AS (
    UPDATE items SET stale = true FROM written JOIN item_versions past USING (namespace, key)
    WHERE NOT written.inserted AND past.version = written.version - 1
        AND past.value IS DISTINCT FROM written.value AND {_RESTS_ON.format(source="written")}
        AND NOT EXISTS (
            SELECT FROM input WHERE input.namespace = items.namespace AND input.key = items.key
        )
)
SELECT namespace, key, id, version, inserted, created_at, updated_at, expires_at FROM written
"""

# Runs after the upsert, in a statement of its own: holding the items' row locks and with a
# fresh snapshot, it sees the passages that a concurrent writer left. Passages of other
# indexes are deleted unless the caller keeps them: they are of the old text, and a reindex
# makes them again.
_REPLACE_PASSAGES = """
WITH owners AS (
    SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::int[])
        AS t (namespace, key, item_id, passages)
), stale AS (
    DELETE FROM passages USING owners
    WHERE passages.namespace = owners.namespace AND passages.key = owners.key
        AND CASE WHEN passages.index_id = $1 THEN passages.ordinal >= owners.passages
            ELSE NOT $14 END
    RETURNING passages.item_id, passages.ordinal, passages.index_id
), changed AS (
    INSERT INTO passages AS present
        (namespace, key, index_id, ordinal, item_id, length, path, text, embedding)
    SELECT namespace, key, $1, ordinal, item_id, length, path, text, embedding
    FROM unnest($6::bigint[], $7::int[], $8::int[], $9::text[], $10::text[], $11::halfvec[])
        AS t (item_id, ordinal, length, path, text, embedding)
    JOIN owners USING (item_id)
    ON CONFLICT (namespace, key, index_id, ordinal) DO UPDATE
    SET path = excluded.path, text = excluded.text, embedding = excluded.embedding,
        item_id = excluded.item_id, length = excluded.length
    WHERE (present.path, present.text, present.item_id)
        IS DISTINCT FROM (excluded.path, excluded.text, excluded.item_id)
        OR (present.embedding IS NULL AND excluded.embedding IS NOT NULL)
    RETURNING item_id, ordinal, index_id
), outdated AS (
    DELETE FROM terms USING (SELECT * FROM stale UNION ALL SELECT * FROM changed) AS gone
    WHERE terms.item_id = gone.item_id AND terms.ordinal = gone.ordinal
        AND terms.index_id = gone.index_id
)
INSERT INTO terms (namespace, term, item_id, index_id, ordinal, frequency, length)
SELECT namespace, term, item_id, $1, ordinal, frequency, length
FROM unnest($6::bigint[], $7::int[], $8::int[], $12::text[], $13::text[])
    AS t (item_id, ordinal, length, terms, frequencies)
JOIN owners USING (item_id) JOIN changed USING (item_id, ordinal)
CROSS JOIN LATERAL unnest(
    string_to_array(terms, E'\\x1f'), string_to_array(frequencies, ',')::int[]
) AS each_term (term, frequency)
"""

# Items that this transaction has written already rest on others knowingly.
_DELETE = f"""
WITH doomed AS (
    SELECT namespace, key, version, expires_at <= $4 AS expired, expires_at FROM items
    JOIN unnest($1::text[], $2::text[]) AS wanted (namespace, key) USING (namespace, key)
    ORDER BY namespace, key FOR UPDATE OF items
), gone AS (
    DELETE FROM items USING doomed
    WHERE items.namespace = doomed.namespace AND items.key = doomed.key
), derived AS (
    UPDATE items SET stale = true FROM doomed
    WHERE {_RESTS_ON.format(source="doomed")} AND items.updated_at <> $4
        AND NOT EXISTS (
            SELECT FROM doomed other
            WHERE other.namespace = items.namespace AND other.key = items.key
        )
)
INSERT INTO item_versions (namespace, key, version, action, actor, recorded_at)
SELECT namespace, key, version + 1, CASE WHEN expired THEN 'expire' ELSE 'delete' END,
    CASE WHEN expired THEN $5 ELSE $3 END, least(expires_at, $4) FROM doomed
"""

# The end is recorded at the moment of expiry, so `as_of` reads do not depend on the sweeper.
_SWEEP = """
WITH expired AS (
    SELECT namespace, key, version, expires_at FROM items
    WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM items USING expired
    WHERE items.namespace = expired.namespace AND items.key = expired.key
), recorded AS (
    INSERT INTO item_versions (namespace, key, version, action, actor, recorded_at)
    SELECT namespace, key, version + 1, 'expire', $3, expires_at FROM expired
    RETURNING 1
)
SELECT count(*) FROM recorded
"""


@dataclass(frozen=True, slots=True)
class ItemPassages:
    """All passages of a stored item, with their vectors."""

    address: Address
    item_id: int
    passages: Sequence[Passage]
    vectors: Sequence[Vector | None]


@dataclass(frozen=True, slots=True)
class LockedItem:
    """An item whose row is locked."""

    version: int
    expired: bool


@dataclass(frozen=True, slots=True)
class FittingItems:
    """Items that fit into a budget of bytes, and the addresses of those that do not."""

    items: dict[Address, Item]
    left_out: frozenset[Address]


def read_item(row: Row) -> Item:
    """Return the item in a row with `COLUMNS`."""
    return Item(
        row["id"],
        Address(row["namespace"], row["key"]),
        row["value"],
        row["version"],
        read_metadata(row),
        read_paths(row),
        row["ttl"],
        row["expires_at"],
        row["created_at"],
        row["updated_at"],
        row["embed_after"] is None,
        row["stale"],
    )


def read_metadata(row: Row) -> ItemMetadata:
    """Return the metadata in a row with `METADATA_COLUMNS`."""
    start, end = row["valid_from"], row["valid_to"]
    return ItemMetadata(
        row["importance"],
        row["pinned"],
        None if start is None else PartialDate(start, Precision(row["valid_from_precision"])),
        None if end is None else PartialDate.ending(end, Precision(row["valid_to_precision"])),
        row["said_first"],
        row["said_last"],
        row["source_class"],
        row["source"],
        read_questions(row),
    )


def _metadata_values(metadata: ItemMetadata) -> tuple[object, ...]:
    """Return the values of the columns in `METADATA`."""
    since, until = metadata.valid_from, metadata.valid_to
    return (
        metadata.importance,
        metadata.pinned,
        since and since.start,
        since and since.precision,
        until and until.end,
        until and until.precision,
        metadata.said_first,
        metadata.said_last,
        metadata.source_class,
        metadata.source,
        json.dumps(metadata.questions, ensure_ascii=False) if metadata.questions else None,
    )


def read_paths(row: Row) -> tuple[str, ...] | None:
    """Return the paths to embed in a row, None for the setting's."""
    paths = row["index_paths"]
    return None if paths is None else _parse_paths(paths)


def read_questions(row: Row) -> tuple[str, ...]:
    """Return the questions in a row that its item answers."""
    questions = row["questions"]
    return () if questions is None else tuple(json.loads(questions))


@lru_cache(maxsize=1024)
def _parse_paths(text: str) -> tuple[str, ...]:
    # Most items of a store have the same few; parsing took a third of the time to read an item.
    return tuple(json.loads(text))


async def find(
    connection: Connection, address: Address, now: datetime, *, with_expired: bool = False
) -> Item | None:
    """Return the item at an address."""
    row = await connection.fetchrow(_FIND, *address, now, with_expired)
    return None if row is None else read_item(row)


async def find_many(
    connection: Connection, addresses: Iterable[Address], now: datetime
) -> dict[Address, Item]:
    """Return the items that exist among some addresses."""
    rows = await connection.fetch(_FIND_MANY, *to_columns(addresses), now)
    return {item.address: item for item in map(read_item, rows)}


async def find_fitting(
    connection: Connection, addresses: Iterable[Address], now: datetime, max_bytes: int
) -> FittingItems:
    """Return the items that exist at some addresses, until their values fill `max_bytes`."""
    rows = await connection.fetch(_FIND_FITTING, *to_columns(addresses), now, max_bytes)
    items = [read_item(row) for row in rows if row["fits"]]
    left_out = (Address(row["namespace"], row["key"]) for row in rows if not row["fits"])
    return FittingItems({item.address: item for item in items}, frozenset(left_out))


async def refresh(connection: Connection, addresses: Iterable[Address], now: datetime) -> None:
    """Restart the lifetime of items that have one and have not expired.

    One item takes one statement, several take a transaction.
    """
    wanted = list(addresses)
    if len(wanted) == 1:
        await connection.execute(_REFRESH, *to_columns(wanted), now)
        return
    async with connection.transaction():
        held = await connection.fetch(_HOLD, *to_columns(wanted), now)
        await connection.execute(_REFRESH, *to_columns(map(_read_address, held)), now)


async def lock(
    connection: Connection, addresses: Iterable[Address], now: datetime
) -> dict[Address, LockedItem]:
    """Lock the items that exist until the transaction ends."""
    rows = await connection.fetch(_LOCK, *to_columns(addresses), now)
    return {_read_address(row): LockedItem(row["version"], bool(row["expired"])) for row in rows}


async def queue(connection: Connection, namespaces: Iterable[StoredNamespace]) -> None:
    """Wait for others who queued for the same namespaces; holds until the transaction ends."""
    await connection.execute(_QUEUE, list(namespaces))


async def upsert(
    connection: Connection, puts: Sequence[PreparedPut], *, actor: str, now: datetime
) -> dict[Address, PutResult]:
    """Write items, at distinct addresses, and their history."""
    rows = await connection.fetch(
        _UPSERT,
        actor,
        now,
        SWEEPER,
        FIRST_WAIT,
        *to_columns(put.address for put in puts),
        [put.value for put in puts],
        [None if put.index_paths is None else json.dumps(put.index_paths) for put in puts],
        [put.ttl for put in puts],
        [put.action for put in puts],
        [put.waits for put in puts],
        *map(list, zip(*(_metadata_values(put.metadata) for put in puts), strict=True)),
    )
    return {Address(namespace, key): PutResult(*result) for namespace, key, *result in rows}


async def replace_passages(
    connection: Connection,
    items: Sequence[ItemPassages],
    index_id: int,
    *,
    keep_other_indexes: bool = False,
) -> None:
    """Make the items' passages exactly these; unchanged ones are not rewritten.

    Passages of other indexes are deleted unless the items' texts are the ones they were made of.
    """
    rows = [
        (item.item_id, ordinal, passage, vector)
        for item in items
        for ordinal, (passage, vector) in enumerate(zip(item.passages, item.vectors, strict=True))
    ]
    await connection.execute(
        _REPLACE_PASSAGES,
        index_id,
        *to_columns(item.address for item in items),
        [item.item_id for item in items],
        [len(item.passages) for item in items],
        [item_id for item_id, *_ in rows],
        [ordinal for _, ordinal, *_ in rows],
        [passage.length for _, _, passage, _ in rows],
        [passage.path for _, _, passage, _ in rows],
        [passage.text for _, _, passage, _ in rows],
        [None if vector is None else HalfVector(vector) for *_, vector in rows],
        [passage.terms for _, _, passage, _ in rows],
        [passage.frequencies for _, _, passage, _ in rows],
        keep_other_indexes,
    )


async def delete(
    connection: Connection, addresses: Iterable[Address], *, actor: str, now: datetime
) -> None:
    """End the items that exist among some addresses; their passages are deleted with them."""
    await connection.execute(_DELETE, *to_columns(addresses), actor, now, SWEEPER)


async def sweep(database: Database, now: datetime) -> int:
    """Remove every item that has expired by `now`; return their number."""
    removed = 0
    while True:
        async with database.transaction(ALL_ROOTS) as connection:
            batch: int = await connection.fetchval(_SWEEP, now, SWEPT_ITEMS, SWEEPER)
        removed += batch
        if batch < SWEPT_ITEMS:
            return removed


def to_columns(addresses: Iterable[Address]) -> tuple[list[str], list[str]]:
    """Return the namespaces and the keys of addresses."""
    pairs = list(addresses)
    return [address.namespace for address in pairs], [address.key for address in pairs]


def _read_address(row: Row) -> Address:
    return Address(row["namespace"], row["key"])
