"""SQL on the changes that jobs propose and make, and their table."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self, TypeAlias, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.conversations.memories import Basis
from app.conversations.messages import SourceClass
from app.db.database import Connection, Row
from app.db.pages import Page, fetch_page
from app.db.tables import BYTEWISE, metadata
from app.json_values import JsonObject, JsonText
from app.namespaces import StoredNamespace
from app.partial_dates import PartialDate
from app.schemas import parse_date
from app.store.types import Address, PutResult

job_changes = Table(
    "job_changes",
    metadata,
    Column("job_id", BYTEWISE, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("namespace", BYTEWISE, nullable=False),
    Column("key", BYTEWISE, nullable=False),
    Column("action", Text, nullable=False, comment="insert, update or delete."),
    Column(
        "state", Text, nullable=False, comment="proposed, applied, rejected, discarded or undone."
    ),
    Column("kind", Text),
    Column("value", JSONB, comment="The value to write; NULL for a delete."),
    Column("details", JSONB, nullable=False, comment="Importance, times, source."),
    Column("reason", Text, comment="The model's reason, if it gave one."),
    Column("version_before", BigInteger, comment="NULL if there was no item."),
    Column("version_after", BigInteger, comment="NULL until applied."),
    Column(
        "value_bytes",
        Integer,
        Computed("octet_length(value::text)", persisted=True),
        comment="Bytes of the JSON text.",
    ),
    PrimaryKeyConstraint("job_id", "number"),
    Index("job_changes_namespace_index", "namespace", "key"),
    comment="Changes that jobs proposed or made, one row for each item.",
)

_T = TypeVar("_T")

Action: TypeAlias = Literal["insert", "update", "delete"]


class ChangeState(StrEnum):
    """The state of a change."""

    PROPOSED = "proposed"
    APPLIED = "applied"
    REJECTED = "rejected"
    DISCARDED = "discarded"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Change:
    """A change that a job proposes, or made, to one item; `value` is None for a delete.

    `ttl_seconds` is the lifetime of an inserted item, or that of the item before the change.
    `state_reason` explains why the change was not applied or not undone. `basis` are items, with
    their versions, on which the change relies. `version_undone` is the version that restored the
    state before the change.
    """

    address: Address
    action: Action
    kind: str | None
    value: JsonText | None
    importance: float | None = None
    valid_from: PartialDate | None = None
    said_first: datetime | None = None
    said_last: datetime | None = None
    source_class: SourceClass | None = None
    source: JsonObject | None = None
    ttl_seconds: float | None = None
    reason: str | None = None
    version_before: int | None = None
    version_after: int | None = None
    number: int = 0
    state: ChangeState = ChangeState.PROPOSED
    state_reason: str | None = None
    basis: Basis = ()
    questions: tuple[str, ...] = ()
    version_undone: int | None = None

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `job_changes`."""
        details = json.loads(row["details"])
        return cls(
            address=Address(row["namespace"], row["key"]),
            action=row["action"],
            kind=row["kind"],
            value=row["value"],
            importance=details.get("importance"),
            valid_from=_read(parse_date, details.get("valid_from")),
            said_first=_read(datetime.fromisoformat, details.get("said_first")),
            said_last=_read(datetime.fromisoformat, details.get("said_last")),
            source_class=details.get("source_class"),
            source=details.get("source"),
            ttl_seconds=details.get("ttl_seconds"),
            reason=row["reason"],
            version_before=row["version_before"],
            version_after=row["version_after"],
            number=row["number"],
            state=ChangeState(row["state"]),
            state_reason=details.get("state_reason"),
            basis=tuple(
                (namespace, key, version) for namespace, key, version in details.get("basis", ())
            ),
            questions=tuple(details.get("questions", ())),
            version_undone=details.get("version_undone"),
        )

    @property
    def namespace(self) -> StoredNamespace:
        """The item's stored namespace."""
        return self.address.namespace

    def to_applied(self, results: Mapping[Address, PutResult]) -> Self:
        """Return the change after it was written, with the version that it produced."""
        if self.action == "delete":
            after = (self.version_before or 0) + 1  # the end of an item has a version, too
        else:
            after = results[self.address].version
        return replace(self, state=ChangeState.APPLIED, version_after=after)

    def details(self) -> str:
        """Return the column `details`."""
        members = {
            "importance": self.importance,
            "valid_from": self.valid_from,
            "said_first": self.said_first and self.said_first.isoformat(),
            "said_last": self.said_last and self.said_last.isoformat(),
            "source_class": self.source_class,
            "source": self.source,
            "ttl_seconds": self.ttl_seconds,
            "state_reason": self.state_reason,
            "basis": self.basis,
            "questions": self.questions,
            "version_undone": self.version_undone,
        }
        return json.dumps(members, ensure_ascii=False, default=str)


def _read(parse: Callable[[str], _T], text: str | None) -> _T | None:
    return None if text is None else parse(text)


@dataclass(frozen=True, slots=True)
class ListedChange:
    """A change, and the value that it replaced."""

    change: Change
    value_before: JsonText | None


_COLUMNS = (
    "number, namespace, key, action, state, kind, value, details, reason, version_before, "
    "version_after"
)

_INSERT = f"""
INSERT INTO job_changes (job_id, {_COLUMNS})
SELECT $1, number, namespace, key, action, state, kind, value::jsonb, details::jsonb, reason,
    version_before, version_after
FROM unnest(
    $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bigint[], $12::bigint[]
) AS t ({_COLUMNS})
"""

_UPDATE = """
UPDATE job_changes SET state = next.state, version_after = next.version_after,
    details = next.details::jsonb
FROM unnest($2::int[], $3::text[], $4::bigint[], $5::text[])
    AS next (number, state, version_after, details)
WHERE job_id = $1 AND job_changes.number = next.number AND job_changes.state = $6
RETURNING job_changes.number
"""

_FIND = f"""
SELECT {_COLUMNS} FROM job_changes WHERE job_id = $1 AND state = $2 ORDER BY number
"""

_FIND_UNDONE = f"""
SELECT {_COLUMNS} FROM job_changes
WHERE (namespace, key) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND state = 'undone'
"""

_PAGE = f"""
SELECT {", ".join(f"change.{column}" for column in _COLUMNS.split(", "))},
    past.value AS value_before,
    coalesce(change.value_bytes, 0) + coalesce(past.value_bytes, 0) AS bytes
FROM job_changes change LEFT JOIN item_versions past ON past.namespace = change.namespace
    AND past.key = change.key AND past.version = change.version_before
WHERE change.job_id = $1 AND change.number > $2 ORDER BY change.number LIMIT $3
"""


async def replace_all(connection: Connection, job_id: str, changes: Sequence[Change]) -> None:
    """Store a job's changes, numbered from 1, in place of those of an earlier run."""
    await connection.execute("DELETE FROM job_changes WHERE job_id = $1", job_id)
    await connection.execute(
        _INSERT,
        job_id,
        list(range(1, len(changes) + 1)),
        [change.address.namespace for change in changes],
        [change.address.key for change in changes],
        [change.action for change in changes],
        [change.state for change in changes],
        [change.kind for change in changes],
        [change.value for change in changes],
        [change.details() for change in changes],
        [change.reason for change in changes],
        [change.version_before for change in changes],
        [change.version_after for change in changes],
    )


async def update(
    connection: Connection, job_id: str, changes: Iterable[Change], *, seen: ChangeState
) -> bool:
    """Update the states of changes; return False if some are no longer in the state `seen`."""
    updated = list(changes)
    rows = await connection.fetch(
        _UPDATE,
        job_id,
        [change.number for change in updated],
        [change.state for change in updated],
        [change.version_after for change in updated],
        [change.details() for change in updated],
        seen,
    )
    return len(rows) == len(updated)


async def find(connection: Connection, job_id: str, state: ChangeState) -> list[Change]:
    """Return a job's changes in a state, in order."""
    return [Change.of_row(row) for row in await connection.fetch(_FIND, job_id, state)]


async def find_undone(connection: Connection, addresses: Collection[Address]) -> list[Change]:
    """Return the changes of items that were undone, of all jobs."""
    namespaces, keys = zip(*addresses, strict=True) if addresses else ((), ())
    rows = await connection.fetch(_FIND_UNDONE, list(namespaces), list(keys))
    return [Change.of_row(row) for row in rows]


async def find_page(
    connection: Connection, job_id: str, *, after: int, limit: int
) -> Page[ListedChange]:
    """Return a page of a job's changes behind a number."""
    page = await fetch_page(connection, _PAGE, job_id, after, limit + 1, limit=limit)
    return page.map(lambda row: ListedChange(Change.of_row(row), row["value_before"]))
