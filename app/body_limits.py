"""Size limits of request bodies, in bytes and in JSON values."""

from dataclasses import dataclass

from app.config import Settings

KIB, MIB = 1 << 10, 1 << 20

ESCAPED = 3
"""Factor by which `\\u` escapes may enlarge a value's UTF-8 text."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The limit of one kind of body; `bytes` None: the server's setting alone."""

    bytes: int | None
    values: int
    items: int = 0
    """Number of item values that it may hold in addition to `bytes`."""
    in_thread: bool = False
    """Whether it is validated in a thread, because that compiles schemas and patterns."""

    def max_bytes(self, settings: Settings) -> int:
        """Return the limit in bytes under a server's settings."""
        if self.bytes is None:
            return settings.max_body_bytes
        own = self.bytes + self.items * ESCAPED * settings.max_value_bytes
        return min(own, settings.max_body_bytes)


SMALL = BodyLimit(64 * KIB, 10_000)
SEARCH = BodyLimit(256 * KIB, 20_000)
CONFIGURATION = BodyLimit(2 * MIB, 50_000, in_thread=True)
CONVERSATION = BodyLimit(4 * MIB, 100_000, in_thread=True)
ITEM = BodyLimit(64 * KIB, 100_000, items=1)
MCP = BodyLimit(MIB, 20_000)
BATCH = BodyLimit(None, 100_000)
