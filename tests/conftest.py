"""Fixtures of all tests, and how property-based tests run."""

import hypothesis

from tests.support.fixtures import *  # noqa: F403 - pytest finds fixtures by their names

# Other processes share the cores: how long an example takes says nothing about the test.
hypothesis.settings.register_profile(
    "shared machine",
    max_examples=50,  # each run tries others
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,  # the tests keep their examples apart
    ],
)
hypothesis.settings.load_profile("shared machine")
