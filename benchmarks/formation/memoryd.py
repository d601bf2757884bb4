"""memoryd over HTTP: sessions as threads, a consolidation, an export, and searches."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.client import HttpClient
from benchmarks.formation.conversations import Conversation, Message, Question, Session
from benchmarks.formation.records import LIMIT, Answer, Memory

CONSOLIDATION = "consolidation"
NEVER_SECONDS = 86_400
LOOK_SECONDS = 2
PAGE = 500
ENDS = {"succeeded", "failed", "cancelled", "awaiting_review"}


class JobFailedError(Exception):
    """A job ended without success; the run can be resumed."""


@dataclass(slots=True)
class Memoryd:
    """A run in a namespace of its own; `jobs.json` in its folder remembers the jobs."""

    client: HttpClient
    name: str
    folder: Path
    manager: dict[str, Any]
    search_fields: dict[str, Any]
    _jobs: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self._jobs = json.loads(self._file.read_text()) if self._file.exists() else {}

    @property
    def _file(self) -> Path:
        return self.folder / "jobs.json"

    @property
    def _namespace(self) -> list[str]:
        return ["formation", self.name]

    async def run(self, conversation: Conversation) -> None:
        """Extract from every session in turn, then consolidate; steps that are done are skipped."""
        for session in conversation.sessions:
            await self._extract(session)
        if self.manager.get("strategy") != "verbatim":
            await self._consolidate()

    async def _extract(self, session: Session) -> None:
        step = f"session {session.name}"
        thread = quote(f"{self.name}-{session.name}", safe="")
        if step not in self._jobs:
            body = {
                "messages": [_message(message) for message in session.messages],
                "namespace": self._namespace,
                "manager_config": self.manager,
                "after_seconds": NEVER_SECONDS,
            }
            await self.client.call("POST", f"/v1/threads/{thread}/messages", body)
            self._keep(step, [])
        await self._finish(step)
        while job := await self._flush(thread):  # a long session is divided into several jobs
            self._keep(step, [*self._jobs[step], job])
            await self._finish(step)

    async def _flush(self, thread: str) -> dict[str, Any] | None:
        flushed = await self.client.call("POST", f"/v1/threads/{thread}/flush")
        job: dict[str, Any] | None = flushed["job"]
        return job

    async def _consolidate(self) -> None:
        if CONSOLIDATION not in self._jobs:
            body = {"namespace": self._namespace, "full": True}
            job = await self.client.call("POST", "/v1/jobs/consolidate", body)
            self._keep(CONSOLIDATION, [job])
        await self._finish(CONSOLIDATION)
        while following := self._jobs[CONSOLIDATION][-1]["result"]["follow_up_job_id"]:
            job = await self.client.call("GET", f"/v1/jobs/{following}")
            self._keep(CONSOLIDATION, [*self._jobs[CONSOLIDATION], job])
            await self._finish(CONSOLIDATION)

    async def _finish(self, step: str) -> None:
        """Wait for the last job of a step; one that failed in an earlier run is retried."""
        if not self._jobs[step] or self._jobs[step][-1]["state"] == "succeeded":
            return
        *earlier, job = self._jobs[step]
        began, path = time.monotonic(), f"/v1/jobs/{job['id']}"
        if job["state"] in {"failed", "cancelled"}:
            await self.client.call("POST", f"{path}/retry")
        while (job := await self.client.call("GET", path))["state"] not in ENDS:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
        if job["state"] == "awaiting_review":  # many changes at once; the run is not supervised
            job = await self.client.call("POST", f"{path}/apply")
        self._keep(step, [*earlier, job])
        if job["state"] != "succeeded":
            raise JobFailedError(f"{step}: {job['state']}: {json.dumps(job['error'])}")
        counts, usage = job["result"]["counts"], job["usage"]
        seconds = time.monotonic() - began
        print(f"{self.name}, {step}: {seconds:.0f} s, {counts}, {usage}", flush=True)

    def _keep(self, step: str, jobs: list[dict[str, Any]]) -> None:
        self._jobs[step] = jobs
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._jobs, indent=1, ensure_ascii=False) + "\n")

    async def export(self) -> list[Memory]:
        """Return all memories, the oldest first."""
        body = {"namespace_prefix": self._namespace, "limit": PAGE, "sort": "created_at"}
        memories: list[Memory] = []
        while True:
            found = await self.client.call("POST", "/v1/store/items/search", body)
            memories += map(_memory, found["items"])
            if found["next_cursor"] is None:
                return memories
            body["cursor"] = found["next_cursor"]

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Run every question as a search."""
        return [Answer(question, await self._search(question.text)) for question in questions]

    def count_usage(self) -> dict[str, int]:
        """Return the model calls and tokens of all jobs."""
        usages = [job["usage"] for jobs in self._jobs.values() for job in jobs]
        names = ("model_calls", "input_tokens", "output_tokens")
        return {name: sum(usage[name] for usage in usages) for name in names}

    async def _search(self, query: str) -> list[Memory]:
        body = {"namespace_prefix": self._namespace, "query": query, "limit": LIMIT}
        body |= self.search_fields
        found = await self.client.call("POST", "/v1/store/items/search", body)
        return [_memory(item) for item in found["items"]]


def _message(message: Message) -> dict[str, Any]:
    name = {} if message.speaker == message.role else {"name": message.speaker}
    return {
        "id": message.id,
        "role": message.role,
        "content": message.text,
        "created_at": message.said_at.isoformat(),
        **name,
        **message.extra,
    }


def _memory(item: dict[str, Any]) -> Memory:
    source = item.get("source") or {}
    dates = ("valid_from", "valid_to", "said_first", "said_last")
    rest = {name: value for name, value in item.items() if name not in {"value", *dates}}
    return Memory(
        key=item["key"],
        text=_text(item["value"]),
        value=item["value"],
        evidence=source.get("message_ids", []),
        item=rest,
        **{name: item.get(name) for name in dates},
    )


def _text(value: dict[str, Any]) -> str:
    """Return the text of a memory or a message; other content as JSON."""
    content = value.get("content", value)
    if isinstance(content, dict) and isinstance(said := content.get("text"), str):
        return f"{content.get('name') or content.get('role')}: {said}"
    if isinstance(content, dict) and content.keys() == {"content"}:
        content = content["content"]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
