"""What is said to models and to clients of MCP when something cannot be done."""

import json

from app.errors import AppError


class ToolError(Exception):
    """What cannot be done as it was asked for; the message is for a model, to do it right."""


class MemoryNotFoundError(ToolError):
    """There is no memory of that id, as far as the caller can see."""

    def __init__(self, memory: str) -> None:
        super().__init__(
            f"There is no memory {json.dumps(memory[:200], ensure_ascii=False)}. Take an id as "
            "search_memories returns it; or the memory was forgotten meanwhile."
        )


class ForeignHostError(AppError):
    """A server without keys is addressed by a name that is not this machine's."""

    status = 421
    code = "foreign_host"
    title = "Not this server's name"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"Without API keys, /mcp answers only at localhost, not at {host!r}: any page that a "
            "browser on this machine shows could give this machine that name and read every "
            "memory. Use http://localhost, or create a key with `memoryd keys create NAME`."
        )


class ForeignOriginError(AppError):
    """A page of another site calls a server without keys."""

    status = 403
    code = "foreign_origin"
    title = "Not from this site"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Without API keys, /mcp takes no calls from pages of {origin!r}: any site that a "
            "browser on this machine shows could read every memory. Create a key with "
            "`memoryd keys create NAME`."
        )
