"""All SQL on the changes that jobs proposed: what was to be written, and what came of it."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self, TypeAlias

from app.conversations.types import Basis
from app.db.database import Connection, Row
from app.db.pages import fetch_page
from app.namespaces import StoredNamespace
from app.pagination import Page
from app.store.types import Address

Action: TypeAlias = Literal["insert", "update", "delete"]


class ChangeState(StrEnum):
    """What came of a change."""

    PROPOSED = "proposed"
    APPLIED = "applied"
    REJECTED = "rejected"
    DISCARDED = "discarded"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class ItemChange:
    """A change of one item; `value` is JSON text, None for a delete.

    `ttl_seconds` is the lifetime of what is inserted, or was that of what is there. `outcome`
    says why the change was not applied or not undone. `basis` are items, with their versions,
    without which the change must not be applied. `version_undone` is the one
    that brought back the state before the change.
    """

    namespace: StoredNamespace
    key: str
    action: Action
    kind: str | None
    value: str | None
    importance: float | None = None
    valid_from: datetime | None = None
    source: dict[str, Any] | None = None
    ttl_seconds: float | None = None
    reason: str | None = None
    version_before: int | None = None
    version_after: int | None = None
    number: int = 0
    state: ChangeState = ChangeState.PROPOSED
    outcome: str | None = None
    basis: Basis = ()
    version_undone: int | None = None

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Read a row of `job_changes`."""
        details = json.loads(row["details"])
        valid_from = details["valid_from"]
        return cls(
            namespace=row["namespace"],
            key=row["key"],
            action=row["action"],
            kind=row["kind"],
            value=row["value"],
            importance=details["importance"],
            valid_from=None if valid_from is None else datetime.fromisoformat(valid_from),
            source=details["source"],
            ttl_seconds=details["ttl_seconds"],
            reason=row["reason"],
            version_before=row["version_before"],
            version_after=row["version_after"],
            number=row["number"],
            state=ChangeState(row["state"]),
            outcome=details["outcome"],
            basis=tuple(tuple(item) for item in details.get("basis", ())),
            version_undone=details.get("version_undone"),
        )

    @property
    def address(self) -> Address:
        """The address of the item."""
        return Address(self.namespace, self.key)

    def details(self) -> str:
        """Return the column `details`."""
        valid_from = None if self.valid_from is None else self.valid_from.isoformat()
        members = {
            "importance": self.importance,
            "valid_from": valid_from,
            "source": self.source,
            "ttl_seconds": self.ttl_seconds,
            "outcome": self.outcome,
            "basis": self.basis,
            "version_undone": self.version_undone,
        }
        return json.dumps(members, ensure_ascii=False)


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

_MARK = """
UPDATE job_changes SET state = marked.state, version_after = marked.version_after,
    details = marked.details::jsonb
FROM unnest($2::int[], $3::text[], $4::bigint[], $5::text[])
    AS marked (number, state, version_after, details)
WHERE job_id = $1 AND job_changes.number = marked.number AND job_changes.state = $6
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


async def keep(connection: Connection, job_id: str, changes: Sequence[ItemChange]) -> None:
    """Keep what a job came to, numbered from 1, instead of what an earlier run of it did."""
    await connection.execute("DELETE FROM job_changes WHERE job_id = $1", job_id)
    await connection.execute(
        _INSERT,
        job_id,
        list(range(1, len(changes) + 1)),
        [change.namespace for change in changes],
        [change.key for change in changes],
        [change.action for change in changes],
        [change.state for change in changes],
        [change.kind for change in changes],
        [change.value for change in changes],
        [change.details() for change in changes],
        [change.reason for change in changes],
        [change.version_before for change in changes],
        [change.version_after for change in changes],
    )


async def mark(
    connection: Connection, job_id: str, changes: Iterable[ItemChange], *, seen: ChangeState
) -> bool:
    """Write down what came of changes; False when some are not in the state they were seen in."""
    marked = list(changes)
    rows = await connection.fetch(
        _MARK,
        job_id,
        [change.number for change in marked],
        [change.state for change in marked],
        [change.version_after for change in marked],
        [change.details() for change in marked],
        seen,
    )
    return len(rows) == len(marked)


async def find(connection: Connection, job_id: str, state: ChangeState) -> list[ItemChange]:
    """Return a job's changes in a state, in order."""
    return [ItemChange.of_row(row) for row in await connection.fetch(_FIND, job_id, state)]


async def find_undone(connection: Connection, addresses: Collection[Address]) -> list[ItemChange]:
    """Return what was undone of items, whichever job did it."""
    namespaces, keys = zip(*addresses, strict=True) if addresses else ((), ())
    rows = await connection.fetch(_FIND_UNDONE, list(namespaces), list(keys))
    return [ItemChange.of_row(row) for row in rows]


async def find_page(connection: Connection, job_id: str, *, after: int, limit: int) -> Page[Row]:
    """Return a page of a job's changes behind a number, with the value that was there before."""
    return await fetch_page(connection, _PAGE, job_id, after, limit + 1, limit=limit)
