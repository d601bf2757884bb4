"""Jobs: the queue's throughput, and the time that `Prefer: wait` adds to a model call.

python -m benchmarks.jobs [--jobs N] [--calls N] [--delay-ms N]

Every job extracts one memory into a namespace of its own from a conversation of one message. The
model is a scripted server, a process of its own: nothing of a real model's time is in the figures.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import server
from benchmarks.client import HttpClient
from benchmarks.measure import Timing, run, table
from benchmarks.vectors import DIMENSIONS, FAKE, NAMES

WORKERS = [1, 4]
CALLERS = [1, 8]
SUBMITTERS = 8
START_SECONDS = 60
LOOK_SECONDS = 0.02
WARMING = 9_000_000

ANSWER = {
    "name": "insert_memory",
    "arguments": {"content": {"content": "The user loves ramen."}, "message_ids": ["1"]},
}
SETTINGS = {
    "MEMORYD_EMBEDDING": NAMES[FAKE],
    "MEMORYD_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
    "MEMORYD_JOBS_PER_ROOT": "64",
    "MEMORYD_LOG_LEVEL": "error",
}
SCRIPT = [{"when": {"tool": "insert_memory"}, "reply": {"calls": [ANSWER]}}]


@contextmanager
def model(delay_ms: float) -> Iterator[dict[str, str]]:
    """Run a model that answers after a delay; yield the settings that select it."""
    port = server.free_port()
    with tempfile.TemporaryDirectory(prefix="memoryd-bench-") as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps(SCRIPT))
        command = [sys.executable, "-m", "tests.support.llm_server", "--port", str(port)]
        command += ["--script", str(script), "--delay-ms", str(delay_ms)]
        with run_process(command, {}):
            wait_for_port(port)
            yield {
                "MEMORYD_LLM": "openai:bench",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
                "OPENAI_API_KEY": "x",
            }


@contextmanager
def run_process(command: list[str], settings: dict[str, str]) -> Iterator[None]:
    """Run a process until the end of the block."""
    process = subprocess.Popen(command, env=os.environ | settings)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int) -> None:
    """Wait until a process listens on a port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise server.DidNotStartError(f"nothing listens on port {port}")


@contextmanager
def deployment(engine: server.Engine, workers: int, delay_ms: float) -> Iterator[str]:
    """Run a server, workers and a model on a fresh database; yield the server's URL."""
    name = f"jobs_{workers}_{delay_ms:g}"
    database_url = engine.fresh_database(name)
    with ExitStack() as stack:
        stack.callback(engine.drop_database, name)
        settings = stack.enter_context(model(delay_ms)) | SETTINGS
        url = stack.enter_context(server.memoryd(database_url, FAKE, settings))
        command = [str(Path(sys.executable).with_name("memoryd")), "worker"]
        settings["MEMORYD_DATABASE_URL"] = database_url
        for _ in range(workers):
            stack.enter_context(run_process(command, settings))
        yield url


async def count_workers(client: HttpClient) -> int:
    """Return the number of live workers."""
    return int((await client.call("GET", "/readyz"))["queue"]["workers"])


async def warm_up(client: HttpClient, workers: int) -> None:
    """Wait until all workers are ready, and run some jobs on each."""
    async with asyncio.timeout(START_SECONDS):
        while await count_workers(client) < workers:  # noqa: ASYNC110 - the server would not tell
            await asyncio.sleep(LOOK_SECONDS)
    await measure_waits(client, WARMING, workers * 8, workers * 16)


def extraction(number: int) -> dict[str, Any]:
    """Return a request with its own namespace."""
    messages = [{"role": "user", "content": f"I love ramen, and so do {number} friends of mine."}]
    return {"namespace": ["bench", f"u{number}"], "messages": messages}


async def submit(client: HttpClient, number: int) -> None:
    """Submit a job."""
    await client.call("POST", "/v1/jobs/extract", extraction(number))


async def submit_and_wait(client: HttpClient, number: int) -> None:
    """Submit a job and wait until it is done."""
    wait = "prefer: wait=60\r\n"
    job = await client.call("POST", "/v1/jobs/extract", extraction(number), wait)
    check(job)


def check(job: dict[str, Any]) -> None:
    """Check that a job did the work that is measured."""
    counts = (job["result"] or {}).get("counts", {})
    assert (job["state"], counts.get("inserted")) == ("succeeded", 1), job


async def measure_throughput(client: HttpClient, jobs: int) -> tuple[float, float]:
    """Return submissions a second, and jobs a second from the first submission to the last end."""
    began = time.perf_counter()
    submitted = await run((partial(submit, client, n) for n in range(jobs)), SUBMITTERS)
    while await count_unfinished(client):  # noqa: ASYNC110 - the server would not tell
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - began
    check((await client.call("GET", "/v1/jobs?limit=1&include=result"))["jobs"][0])
    return submitted.per_second, jobs / seconds


async def count_unfinished(client: HttpClient) -> int:
    """Return how many jobs have not ended."""
    queue = (await client.call("GET", "/readyz"))["queue"]
    assert queue["failed"] == 0
    return int(queue["pending"] + queue["scheduled"] + queue["running"])


async def measure_waits(client: HttpClient, first: int, callers: int, calls: int) -> Timing:
    """Return how long requests that wait for their job take."""
    numbers = range(first, first + calls)
    return await run((partial(submit_and_wait, client, n) for n in numbers), callers)


async def measure(arguments: argparse.Namespace) -> None:
    """Measure both and print them."""
    rates = [["jobs a second", "submitted", "done"]]
    waits = [["wait, beyond the model's", "p50 ms", "p95 ms", "p99 ms"]]
    with server.engine() as engine:
        for workers in WORKERS:
            with deployment(engine, workers, 0) as url, closing(HttpClient(url)) as client:
                await warm_up(client, workers)
                submitted, done = await measure_throughput(client, arguments.jobs)
                rates.append([plural(workers, "worker"), f"{submitted:.0f}", f"{done:.1f}"])
        delay = arguments.delay_ms
        with deployment(engine, 1, delay) as url, closing(HttpClient(url)) as client:
            await warm_up(client, 1)
            for callers in CALLERS:
                timing = await measure_waits(client, callers * 1_000_000, callers, arguments.calls)
                beyond = [f"{timing.percentile_ms(p) - delay:.1f}" for p in (50, 95, 99)]
                waits.append([plural(callers, "caller"), *beyond])
    print(f"\n{arguments.jobs} jobs, a model that answers at once\n\n{table(rates)}")
    print(f"\n{arguments.calls} jobs, a model that takes {delay:g} ms, 1 worker\n\n{table(waits)}")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if needed."""
    return f"{number} {noun}" + ("s" if number > 1 else "")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000, help="jobs for the rates")
    parser.add_argument("--calls", type=int, default=200, help="jobs that are waited for")
    parser.add_argument("--delay-ms", type=float, default=200, help="the model's time")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(arguments()))
