"""LangMem itself, with a chat model that a test answers for."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field
from typing_extensions import override

with warnings.catch_warnings(action="ignore"):  # it imports what LangGraph calls outdated
    from langgraph.store.memory import InMemoryStore
    from langmem import (  # type: ignore[import-untyped]
        create_manage_memory_tool,
        create_memory_manager,
        create_memory_searcher,
        create_memory_store_manager,
        create_prompt_optimizer,
        create_search_memory_tool,
        create_thread_extractor,
    )
    from langmem.knowledge.extraction import (  # type: ignore[import-untyped]
        Memory as LangMemMemory,
    )
    from langmem.knowledge.extraction import SummarizeThread

__all__ = [
    "Asked",
    "ChatModel",
    "InMemoryStore",
    "LangMemMemory",
    "SummarizeThread",
    "calling",
    "create_manage_memory_tool",
    "create_memory_manager",
    "create_memory_searcher",
    "create_memory_store_manager",
    "create_prompt_optimizer",
    "create_search_memory_tool",
    "create_thread_extractor",
    "in_turn",
]


@dataclass(frozen=True)
class Asked:
    """A request to the model; `tool_choice` is "any", a tool's name, or None."""

    messages: Sequence[BaseMessage]
    tools: list[str]
    tool_choice: str | None

    @property
    def text(self) -> str:
        return "\n".join(str(message.content) for message in self.messages)


class ChatModel(BaseChatModel):
    """Answers with what `respond` makes of a request."""

    respond: Callable[[Asked], AIMessage]
    asked: list[Asked] = Field(default_factory=list)

    @property
    @override
    def _llm_type(self) -> str:
        return "scripted"

    @override
    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[Any, AIMessage]:
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.bind(tools=names, tool_choice=tool_choice)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = Asked(messages, kwargs.get("tools", []), kwargs.get("tool_choice"))
        self.asked.append(asked)
        return ChatResult(generations=[ChatGeneration(message=self.respond(asked))])


def calling(*wanted: tuple[str, dict[str, Any]]) -> AIMessage:
    """Return a reply with calls of tools."""
    calls = [
        ToolCall(name=name, args=arguments, id=f"call_{number}")
        for number, (name, arguments) in enumerate(wanted)
    ]
    return AIMessage("", tool_calls=calls)


def in_turn(*replies: AIMessage) -> Callable[[Asked], AIMessage]:
    """Return a `respond` that gives its replies one after the other."""
    left = list(replies)
    return lambda _: left.pop(0)
