"""Fixtures of all tests, and how property-based tests run."""

import hypothesis

from tests.support.fixtures import (
    client,
    clock,
    cluster,
    database,
    database_url,
    embedder,
    filled_url,
    keys,
    llm,
    memories,
    resources,
    server,
    settings,
    shared_database_url,
    store,
    threads,
    working_server,
)

__all__ = [
    "client",
    "clock",
    "cluster",
    "database",
    "database_url",
    "embedder",
    "filled_url",
    "keys",
    "llm",
    "memories",
    "resources",
    "server",
    "settings",
    "shared_database_url",
    "store",
    "threads",
    "working_server",
]

# Other processes share the cores: how long an example takes says nothing about the test.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")
