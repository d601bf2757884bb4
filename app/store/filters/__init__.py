"""The filter language: JSON from a client becomes an SQL condition over an item.

`parse_filter` refuses everything a client can get wrong. What it returns always compiles, and
the condition `to_sql` writes over `items AS i` cannot make PostgreSQL raise and is never NULL.
"""

from app.store.filters.checks import InvalidFilterError
from app.store.filters.parser import parse_filter
from app.store.filters.sql import to_sql
from app.store.filters.tree import Filter

__all__ = ["Filter", "InvalidFilterError", "parse_filter", "to_sql"]
