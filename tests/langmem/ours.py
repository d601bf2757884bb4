"""memoryd over HTTP, doing what a script decides."""

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx2
from pydantic import BaseModel, SecretStr

from app.config import Settings
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.langmem.decisions import JSON, Decision, Insert, Patch, Remove, Script
from tests.support.app import Store, running
from tests.support.jobs import quick
from tests.support.llm_server import LLMServer, Received, Reply, calls

Respond: TypeAlias = Callable[[Received], Reply]

SEARCHER = "searcher"
"""The query model."""

_MEMORY = re.compile(r'<memory id="([^"]+)"[^>]*>(.*)</memory>')


def shown(received: Received) -> dict[str, JSON]:
    """Return the memories that a request shows, as they were shown last, by their ids."""
    texts = "\n".join(message.text for message in received.messages)
    return {id_: json.loads(content) for id_, content in _MEMORY.findall(texts)}


def responding(script: Script, queries: Sequence[str] = ()) -> Respond:
    """Return a `respond` that decides what a script says; the query model searches."""

    def respond(received: Received) -> Reply:
        if received.model == SEARCHER:
            return calls(*(("search_memories", {"query": query}) for query in queries))
        decided = script.decide(shown(received))
        wanted = [_call(*decision) for decision in decided]
        return calls(*wanted or [("no_change", {"reason": "-"})])

    return respond


def _call(decision: Decision, id_: str) -> tuple[str, JSON]:
    match decision:
        case Insert(_, memory):
            return f"insert_{memory.kind}", {"content": memory.content, "importance": 0.5}
        case Patch(_, edits):
            return "update_memory", {"id": id_, "edits": list(edits)}
        case Remove():
            return "delete_memory", {"id": id_, "reason": "-"}


def kind(schema: type[BaseModel], *, single: bool = False) -> JSON:
    """Return a Pydantic class as a kind of memory."""
    own = {"name": schema.__name__, "schema": schema.model_json_schema()}
    return {**own, "singleton": True} if single else own


class Memoryd:
    """A client of a server with a worker, and the scripted model behind it."""

    def __init__(self, client: httpx2.AsyncClient, llm: LLMServer) -> None:
        self.client = client
        self.llm = llm
        self.store = Store(client)

    async def job(self, path: str, **body: Any) -> JSON:
        """Submit a job, and wait for it."""
        headers = {"Prefer": "wait=60"}
        response = await self.client.post(f"/v1/jobs/{path}", json=body, headers=headers)
        assert response.status_code == 200, response.text
        answer: JSON = response.json()
        return answer

    async def extract(self, messages: Sequence[Any], **body: Any) -> JSON:
        """Return the result of an extraction that succeeds."""
        job = await self.job("extract", messages=list(messages), **body)
        assert job["state"] == "succeeded", job
        result: JSON = job["result"]
        return result

    async def items(self, namespace: Sequence[str]) -> dict[str, JSON]:
        """Return the values at and below a namespace by their keys."""
        found = await self.store.search(list(namespace), limit=1000)
        return {item["key"]: item["value"] for item in found}


@asynccontextmanager
async def serving(database_url: str, llm: LLMServer) -> AsyncIterator[Memoryd]:
    """Yield a memoryd that asks a scripted model."""
    settings = quick(
        Settings(database_url=database_url, database_pool_size=8, llm="openai:scripted"),
        openai_api_key=SecretStr("sk-test"),
        openai_base_url=llm.base_url_openai,
        allowed_models=[f"openai:{SEARCHER}"],
    )
    async with running(create_app(settings, embedder=FakeEmbedder()), worker=True) as client:
        yield Memoryd(client, llm)
