"""What the database gathers for a search and what is ranked here: arrays, no objects per row."""

from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Truths: TypeAlias = npt.NDArray[np.bool_]
Rows: TypeAlias = npt.NDArray[Any]
"""A structured array, its fields named as in the types below."""

# The columns of each kind of row as PostgreSQL's send functions write them, one after another.
ITEM = {
    "id": ("int8send(i.id)", ">i8"),
    "updated_at": ("float8send(extract(epoch FROM i.updated_at)::float8)", ">f8"),
    "importance": ("float8send(coalesce(i.importance, 'NaN'))", ">f8"),
    "pinned": ("boolsend(i.pinned)", "?"),
    "passes": ("boolsend({passes})", "?"),
    "thread": (
        "int8send(coalesce(hashtextextended(i.thread_id, hashtextextended(i.namespace, 0)), 0))",
        ">i8",
    ),
    "position": ("float8send(coalesce(i.position, 'NaN'::float8))", ">f8"),
}
PASSAGE = {
    "item_id": ("int8send(p.item_id)", ">i8"),
    "ordinal": ("int2send(p.ordinal)", ">i2"),
    "length": ("int4send(p.length)", ">i4"),
    "similarity": ("float8send({similarity})", ">f8"),
}
HIT = {
    "word": ("int2send(q.word)", ">i2"),
    "item_id": ("int8send(t.item_id)", ">i8"),
    "ordinal": ("int2send(t.ordinal)", ">i2"),
    "frequency": ("int2send(t.frequency)", ">i2"),
    "length": ("int4send(t.length)", ">i4"),
}
USE = {
    "item_id": ("int8send(u.item_id)", ">i8"),
    "uses": ("int8send(u.uses)", ">i8"),
    "last_used_at": ("float8send(extract(epoch FROM u.last_used_at)::float8)", ">f8"),
}
Columns: TypeAlias = dict[str, tuple[str, str]]


def packed(columns: Columns, **expressions: str) -> str:
    """Return the SQL aggregate that packs rows into one value, read back by `unpack`.

    A row of numbers costs a tenth of a row that a driver decodes column by column.
    """
    sent = " || ".join(expression for expression, _ in columns.values())
    return f"string_agg({sent.format(**expressions)}, '')"


def unpack(columns: Columns, data: bytes | None) -> Rows:
    """Return packed rows, in the machine's own byte order."""
    stored = np.dtype([(name, kind) for name, (_, kind) in columns.items()])
    return np.frombuffer(data or b"", stored).astype(stored.newbyteorder("="))


@dataclass(frozen=True, slots=True)
class Pool:
    """Items in ascending order of id, their passages, and where the query's words stand.

    Items that do not pass the filter are not returned, but neighbours may lean on what they say.

    `item_of` and `passage_of` lead from a passage and a hit to the row it belongs to.
    """

    items: Rows
    passages: Rows
    hits: Rows
    item_of: Integers
    passage_of: Integers
    uses: Rows = field(default_factory=lambda: unpack(USE, None))

    @classmethod
    def of(cls, items: Rows, passages: Rows, hits: Rows, uses: Rows) -> Self:
        """Join the rows; passages without an item and hits without a passage are left out."""
        items = items[np.argsort(items["id"])]
        passages, item_of = _joined(passages, passages["item_id"], items["id"])
        numbers = passage_number(passages)
        by_number = np.argsort(numbers)
        hits, places = _joined(hits, passage_number(hits), numbers[by_number])
        return cls(items, passages, hits, item_of, by_number[places], uses)


def passage_number(rows: Rows) -> Integers:
    """Return one number for the passage of each row; an item has fewer than 2^15 passages."""
    numbers: Integers = (rows["item_id"] << 15) | rows["ordinal"]
    return numbers


def item_of_number(numbers: Integers) -> Integers:
    """Return the item of each passage that `passage_number` gave a number."""
    items: Integers = numbers >> 15
    return items


def _joined(rows: Rows, wanted: Integers, ascending: Integers) -> tuple[Rows, Integers]:
    """Return the rows whose `wanted` value is in `ascending`, and where it is there."""
    if not len(ascending):
        return rows[:0], np.zeros(0, np.int64)
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    found = ascending[places] == wanted
    return rows[found], places[found]
