"""memoryd as a LangGraph store: `MemorydStore(url)` is a `BaseStore` over HTTP."""

from langgraph_memoryd.errors import InvalidInputError, InvalidLabelsError, MemorydError
from langgraph_memoryd.store import MemorydStore

__all__ = ["InvalidInputError", "InvalidLabelsError", "MemorydError", "MemorydStore"]
