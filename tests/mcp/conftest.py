"""MCP clients of the application in this process."""

import pytest


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """The protocol of today, which has no handshake, or that of before, which has one."""
    return str(request.param)
