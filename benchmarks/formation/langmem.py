"""LangMem's store manager on the same sessions, with the model at ANTHROPIC_BASE_URL."""

import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from pydantic import SecretStr

from benchmarks import vectors
from benchmarks.formation.conversations import Conversation, Message, Question
from benchmarks.formation.records import LIMIT, Answer, Memory

with warnings.catch_warnings(action="ignore"):  # it imports names that LangGraph deprecates
    from langgraph.store.memory import InMemoryStore
    from langmem import create_memory_store_manager  # type: ignore[import-untyped]

MAX_TOKENS = 16_000
MAX_MEMORIES = 1_000


@dataclass(slots=True)
class LangMem:
    """A run; `store.json` in its folder holds the store after each session."""

    name: str
    folder: Path
    model: str
    timeout_seconds: float
    options: dict[str, Any]
    _store: InMemoryStore = field(init=False)

    def __post_init__(self) -> None:
        embed = vectors.embedding(vectors.LOCAL)

        async def as_lists(texts: Sequence[str]) -> list[list[float]]:
            rows: list[list[float]] = (await embed(texts)).tolist()
            return rows

        self._store = InMemoryStore(index={"dims": vectors.DIMENSIONS, "embed": as_lists})

    @property
    def _file(self) -> Path:
        return self.folder / "store.json"

    @property
    def _namespace(self) -> tuple[str, ...]:
        return ("formation", self.name)

    async def run(self, conversation: Conversation) -> None:
        """Extract from every session in turn; sessions that are done are skipped."""
        done = await self._restore()
        manager = create_memory_store_manager(
            self._chat_model(), namespace=self._namespace, store=self._store, **self.options
        )
        for session in conversation.sessions:
            if session.name in done:
                continue
            began = time.monotonic()
            messages = [_message(message) for message in session.messages]
            written = await manager.ainvoke({"messages": messages})
            done.append(session.name)
            await self._keep(done)
            seconds = time.monotonic() - began
            step = f"{self.name}, session {session.name}"
            print(f"{step}: {seconds:.0f} s, {len(written)} written", flush=True)

    def _chat_model(self) -> ChatAnthropic:
        return ChatAnthropic(
            model=self.model,
            max_tokens=MAX_TOKENS,
            timeout=self.timeout_seconds,
            max_retries=0,
            stop=None,
            base_url=os.environ.get("ANTHROPIC_BASE_URL"),
            api_key=SecretStr(os.environ.get("ANTHROPIC_API_KEY", "none")),
        )

    async def _restore(self) -> list[str]:
        if not self._file.exists():
            return []
        kept = json.loads(self._file.read_text())
        for key, value in kept["items"].items():
            await self._store.aput(self._namespace, key, value)
        sessions: list[str] = kept["sessions"]
        return sessions

    async def _keep(self, sessions: list[str]) -> None:
        found = await self._store.asearch(self._namespace, limit=MAX_MEMORIES)
        kept = {"sessions": sessions, "items": {item.key: item.value for item in found}}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")

    async def export(self) -> list[Memory]:
        """Return all memories."""
        found = await self._store.asearch(self._namespace, limit=MAX_MEMORIES)
        return [_memory(item.key, item.value) for item in found]

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Run every question as a search."""
        return [Answer(question, await self._search(question.text)) for question in questions]

    def count_usage(self) -> dict[str, int]:
        """Return nothing: LangMem does not count."""
        return {}

    async def _search(self, query: str) -> list[Memory]:
        found = await self._store.asearch(self._namespace, query=query, limit=LIMIT)
        return [_memory(item.key, item.value) for item in found]


def _message(message: Message) -> AnyMessage:
    """Return a message whose text begins with its time and speaker, for which there is no field."""
    text = f"[{message.said_at:%Y-%m-%d %H:%M}] {message.speaker}: {message.text}"
    if message.role == "tool":
        return ToolMessage(text, tool_call_id=message.extra["tool_call_id"])
    if message.role == "assistant":
        return AIMessage(text, tool_calls=message.extra.get("tool_calls", []))
    return HumanMessage(text)


def _memory(key: str, value: dict[str, Any]) -> Memory:
    content = value["content"]
    text = content.get("content") if isinstance(content, dict) else content
    return Memory(key, text or json.dumps(content, ensure_ascii=False), value)
