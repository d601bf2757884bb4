"""Fixtures of the server's own tests: a PostgreSQL server, and memoryd on it."""

from tests.conftest import cluster, server

__all__ = ["cluster", "server"]
