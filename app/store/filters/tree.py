"""The tree that a checked filter is parsed to."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Operator: TypeAlias = Literal[
    "$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$contains", "subset"
]


@dataclass(frozen=True, slots=True)
class Field:
    """A place in the item's value: the literal key, or else the dotted path it spells."""

    key: str

    @property
    def literal(self) -> bool:
        """True if the key can only name an entry of a top-level object."""
        return "." not in self.key and not self.key.strip().lstrip("+-").isdecimal()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the item itself, with its PostgreSQL type."""

    name: str
    type: Literal["text", "double precision", "bigint", "timestamptz"]


COLUMNS = {
    column.name: column
    for column in (
        Column("key", "text"),
        Column("importance", "double precision"),
        Column("version", "bigint"),
        Column("created_at", "timestamptz"),
        Column("updated_at", "timestamptz"),
        Column("valid_from", "timestamptz"),
        Column("valid_to", "timestamptz"),
    )
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operator applied to one field or column.

    The operand is decoded JSON for a field and the column's Python type (or None) for a column;
    `$in` holds a list of those. `subset` is the match of a plain object.
    """

    target: Field | Column
    operator: Operator
    operand: Any


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; with no parts, always true."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter: TypeAlias = And | Or | Not | Comparison
