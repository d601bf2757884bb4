"""Which items a search is about, as SQL conditions."""

from dataclasses import dataclass
from datetime import datetime

from app.db.sql import Parameters
from app.namespaces import Range
from app.store.filters import Filter, to_sql


@dataclass(frozen=True, slots=True)
class Scope:
    """The items a search is about."""

    namespaces: Range
    filter: Filter | None
    now: datetime
    with_expired: bool
    valid_at: datetime | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether there is no filter, on the value or on validity."""
        return self.filter is None and self.valid_at is None

    def namespace_in_range(self, alias: str, parameters: Parameters) -> str:
        """Return the condition on the namespace of any table that has one."""
        low = parameters.add(self.namespaces.low, "text")
        high = parameters.add(self.namespaces.high, "text")
        return f"{alias}.namespace >= {low} AND {alias}.namespace < {high}"

    def holds_item(self, parameters: Parameters) -> str:
        """Return the whole condition on a row of `items i`."""
        return f"{self.is_alive(parameters)} AND {self.passes(parameters)}"

    def is_alive(self, parameters: Parameters) -> str:
        """Return the condition that an item is in the namespaces and has not expired."""
        in_range = self.namespace_in_range("i", parameters)
        if self.with_expired:
            return in_range
        now = parameters.add(self.now, "timestamptz")
        return f"{in_range} AND (i.expires_at IS NULL OR i.expires_at > {now})"

    def passes(self, parameters: Parameters) -> str:
        """Return the condition that an item is valid when it should be and passes the filter."""
        conditions = ["true"]
        if self.valid_at is not None:
            moment = parameters.add(self.valid_at, "timestamptz")
            conditions.append(f"(i.valid_from IS NULL OR i.valid_from <= {moment})")
            conditions.append(f"(i.valid_to IS NULL OR i.valid_to > {moment})")
        if self.filter is not None:
            conditions.append(f"({to_sql(self.filter, parameters)})")
        return " AND ".join(conditions)
