"""What the database gathers for a search and what is ranked: arrays, no objects for rows."""

from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from app.search.packing import USES, Rows

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Truths: TypeAlias = npt.NDArray[np.bool_]


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
    uses: Rows = field(default_factory=lambda: USES.unpack(None))

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
