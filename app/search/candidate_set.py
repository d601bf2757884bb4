"""Candidates of a search as numpy arrays, and the format in which PostgreSQL sends them.

A search of a small scope reads thousands of rows of numbers and returns ten items, and a driver
that decodes such rows column by column takes ten times as long. So each kind of row has a
`RowFormat`: PostgreSQL concatenates the binary form of every column of every row into one `bytea`
(`string_agg(int8send(id) || float8send(…), '')`), and numpy reads that value as a structured
array, with no Python object per row (docs/decisions/0009-terms.md).
"""

from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Booleans: TypeAlias = npt.NDArray[np.bool_]

Rows: TypeAlias = npt.NDArray[np.void]
"""A structured array; its fields are the columns of a `RowFormat`."""


class RowFormat:
    """Columns of fixed width: the SQL that sends each as bytes, and numpy's type of those bytes."""

    def __init__(self, **columns: tuple[str, str]) -> None:
        self._sent = " || ".join(expression for expression, _ in columns.values())
        self._stored = np.dtype([(name, kind) for name, (_, kind) in columns.items()])
        self.dtype = self._stored.newbyteorder("=")

    def sql(self, **expressions: str) -> str:
        """Return the aggregate that sends rows, with its `{name}`s replaced by expressions."""
        return f"string_agg({self._sent.format(**expressions)}, '')"

    def read(self, data: bytes | None) -> Rows:
        """Return the rows that were sent, in the machine's byte order."""
        return np.frombuffer(data or b"", self._stored).astype(self.dtype)


# The aliases are those of the repository's statements: items i, passages p, terms t joined with
# the query's terms q, item_usage u.
ITEMS = RowFormat(
    id=("int8send(i.id)", ">i8"),
    time=("float8send(date_part('epoch', coalesce(i.said_last, i.updated_at)))", ">f8"),
    importance=("float8send(coalesce(i.importance, 'NaN'))", ">f8"),
    pinned=("boolsend(i.pinned)", "?"),
    factor=("float4send({factor})", ">f4"),
    passes=("boolsend({passes})", "?"),
    thread=(
        "int8send(coalesce(hashtextextended(i.thread_id, hashtextextended(i.namespace, 0)), 0))",
        ">i8",
    ),
    position=("float8send(coalesce(i.position, 'NaN'::float8))", ">f8"),
)
PASSAGES = RowFormat(
    item_id=("int8send(p.item_id)", ">i8"),
    ordinal=("int2send(p.ordinal)", ">i2"),
    length=("int4send(p.length)", ">i4"),
    similarity=("float8send({similarity})", ">f8"),
)
HITS = RowFormat(
    word=("int2send(q.place::smallint)", ">i2"),
    item_id=("int8send(t.item_id)", ">i8"),
    ordinal=("int2send(t.ordinal)", ">i2"),
    frequency=("int2send(t.frequency)", ">i2"),
    length=("int4send(t.length)", ">i4"),
)
USES = RowFormat(
    item_id=("int8send(u.item_id)", ">i8"),
    uses=("int8send(u.uses)", ">i8"),
    last_used_at=("float8send(date_part('epoch', u.last_used_at))", ">f8"),
)


@dataclass(frozen=True, slots=True)
class CandidateSet:
    """Items in ascending order of id, their passages, and the query's words in those.

    Items that do not pass the filter are not returned, but their neighbors in a thread may draw
    on their words. `item_of` and `passage_of` hold the index of the item of each passage, and of
    the passage of each hit.
    """

    items: Rows
    passages: Rows
    hits: Rows
    item_of: Integers
    passage_of: Integers
    uses: Rows = field(default_factory=lambda: USES.read(None))

    @classmethod
    def of(cls, items: Rows, passages: Rows, hits: Rows, uses: Rows) -> Self:
        """Join the rows; passages without an item and hits without a passage are left out."""
        items = items[np.argsort(items["id"])]
        passages, item_of = _join(passages, passages["item_id"], items["id"])
        numbers = passage_number(passages)
        by_number = np.argsort(numbers)
        hits, indices = _join(hits, passage_number(hits), numbers[by_number])
        return cls(items, passages, hits, item_of, by_number[indices], uses)


def passage_number(rows: Rows) -> Integers:
    """Return one number for the passage of each row; an item has fewer than 2^15 passages."""
    numbers: Integers = (rows["item_id"] << 15) | rows["ordinal"]
    return numbers


def item_of_number(numbers: Integers) -> Integers:
    """Return the item id in each number that `passage_number` made."""
    items: Integers = numbers >> 15
    return items


def _join(rows: Rows, keys: Integers, ascending: Integers) -> tuple[Rows, Integers]:
    """Return the rows whose key is in `ascending`, and the indices of their keys in it."""
    if not len(ascending):
        return rows[:0], np.zeros(0, np.int64)
    indices = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found = ascending[indices] == keys
    return rows[found], indices[found]
