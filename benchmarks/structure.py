"""Size and shape of the code: files, lines, and the files that one request runs through.

`python -m benchmarks.structure` traces a put, a hybrid search, and an extraction in this process,
and counts the distinct files under `app/` in which a function ran from request to response.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
from pydantic import SecretStr

from app.config import Settings
from app.embedded import EmbeddedPostgres
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from tests.support.app import running
from tests.support.databases import Cluster
from tests.support.llm_server import calls, llm_server

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "app"
NAMESPACE = ["users", "alice"]
MEMORY = {"content": {"content": "The user loves ramen."}, "importance": 0.5, "message_ids": ["1"]}


class Tracer:
    """Collects the files under `app/` whose functions run, in all threads of this process."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    @contextmanager
    def install(self) -> Iterator[None]:
        """Trace until the end of the block, in this thread and in those started during it."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    async def files_of(self, request: Callable[[], Awaitable[httpx2.Response]]) -> list[str]:
        """Return the files that a request runs through, after one like it has warmed up caches."""
        (await request()).raise_for_status()
        self.files.clear()
        (await request()).raise_for_status()
        return sorted(self.files)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(APP)) and frame.f_code.co_name != "<module>":
            self.files.add(str(Path(name).relative_to(APP)))


async def trace_store(tracer: Tracer, settings: Settings) -> dict[str, list[str]]:
    """Trace a put and a hybrid search."""
    async with running(create_app(settings, embedder=FakeEmbedder())) as client:
        body = {"namespace": NAMESPACE, "key": "k", "value": {"text": "Alice loves ramen."}}
        query = {"namespace_prefix": NAMESPACE, "query": "What does Alice love?"}
        return {
            "put": await tracer.files_of(lambda: client.put("/v1/store/items", json=body)),
            "search": await tracer.files_of(
                lambda: client.post("/v1/store/items/search", json=query)
            ),
        }


async def trace_extraction(tracer: Tracer, settings: Settings) -> dict[str, list[str]]:
    """Trace an extraction with `Prefer: wait`, done by a worker in the same process."""
    users = count()
    messages = [{"role": "user", "content": "I love ramen."}]
    async with llm_server() as llm:
        llm.respond = lambda _: calls(("insert_memory", MEMORY))
        chosen = Settings(
            database_url=settings.database_url,
            llm="openai:test",
            openai_base_url=llm.base_url_openai,
            openai_api_key=SecretStr("x"),
        )
        async with running(create_app(chosen, embedder=FakeEmbedder()), worker=True) as client:

            async def extract() -> httpx2.Response:
                response = await client.post(
                    "/v1/jobs/extract",
                    json={"messages": messages, "namespace": ["users", str(next(users))]},
                    headers={"Prefer": "wait=30"},
                    timeout=60,
                )
                assert response.json()["result"]["counts"]["inserted"] == 1, response.text
                return response

            return {"extract": await tracer.files_of(extract)}


def trace() -> dict[str, list[str]]:
    """Return the files of each traced request, on a fresh database."""
    tracer = Tracer()
    with (
        tempfile.TemporaryDirectory(prefix="memoryd-bench-") as folder,
        EmbeddedPostgres(Path(folder)) as embedded,
    ):
        cluster = Cluster(embedded)
        cluster.prepare()
        with cluster.database() as url, tracer.install():
            settings = Settings(database_url=url, database_pool_size=5)
            return {
                **asyncio.run(trace_store(tracer, settings)),
                **asyncio.run(trace_extraction(tracer, settings)),
            }


def measure(folder: str) -> tuple[int, int]:
    """Return the number of Python files below a folder, and of their lines."""
    files = list((ROOT / folder).rglob("*.py"))
    return len(files), sum(len(path.read_text("utf-8").splitlines()) for path in files)


def features() -> dict[str, int]:
    """Return the number of files in each package of `app/`."""
    folders = [path for path in sorted(APP.iterdir()) if (path / "__init__.py").exists()]
    return {path.name: len(list(path.rglob("*.py"))) for path in folders}


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the files of each request")
    arguments: Any = parser.parse_args()
    for folder in ("app", "tests", "clients"):
        files, lines = measure(folder)
        print(f"{folder}: {files} files, {lines:,} lines")
    print("files by package:", ", ".join(f"{name} {files}" for name, files in features().items()))
    for request, files_run in trace().items():
        print(f"files a {request} goes through: {len(files_run)}")
        if arguments.list:
            print("".join(f"  {name}\n" for name in files_run), end="")


if __name__ == "__main__":
    main()
