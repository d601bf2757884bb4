"""Query plans: what PostgreSQL does for the statements a piece of code runs."""

import json
from collections.abc import Iterator
from typing import Any

from app.db.database import Connection


class ExplainingConnection:
    """A connection that keeps the plan of every statement it runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    async def fetch(self, sql: str, *values: Any) -> Any:
        await self._explain(sql, values)
        return await self._connection.fetch(sql, *values)

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        await self._explain(sql, values)
        return await self._connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        await self._explain(sql, values)
        return await self._connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: Any) -> Any:
        if values:
            await self._explain(sql, values)
        return await self._connection.execute(sql, *values)

    def transaction(self) -> Any:
        return self._connection.transaction()

    async def _explain(self, sql: str, values: tuple[Any, ...]) -> None:
        explained = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *values)
        self.plans.append(json.loads(explained)[0]["Plan"])

    @property
    def indexes(self) -> set[str]:
        """The indexes that the plans read."""
        return {node["Index Name"] for node in self._nodes() if "Index Name" in node}

    @property
    def scanned_tables(self) -> set[str]:
        """The tables that the plans read from end to end."""
        return {node["Relation Name"] for node in self._nodes() if node["Node Type"] == "Seq Scan"}

    def _nodes(self) -> Iterator[dict[str, Any]]:
        pending = list(self.plans)
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.get("Plans", ()))
