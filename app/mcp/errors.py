"""What is said to models and to clients of MCP when there is no such memory."""

import json

from app.tools.base import ToolError


class MemoryNotFoundError(ToolError):
    """There is no memory of that id, as far as the caller can see."""

    def __init__(self, memory: str) -> None:
        super().__init__(
            f"There is no memory {json.dumps(memory[:200], ensure_ascii=False)}. Take an id as "
            "search_memories returns it; or the memory was forgotten meanwhile."
        )
