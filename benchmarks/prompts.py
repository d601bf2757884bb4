"""Production prompts read per second, compared with items with the same texts in one server.

python -m benchmarks.prompts
"""

import asyncio
from functools import partial

import uvloop

from benchmarks import server
from benchmarks.client import HttpClient
from benchmarks.data import TextSource
from benchmarks.measure import Timing, run, table
from benchmarks.vectors import FAKE

PROMPTS, VERSIONS = 200, 5
CALLERS = [1, 16]
ROUNDS, CALLS = 20, 500
"""Reads of prompts and items in turn, so that other load on the machine affects both."""

PATHS = {
    "get_item": "/v1/store/items?namespace=prompts&key=p{}",
    "get_prompt": "/v1/prompts/p{}?label=production",
}


async def load(client: HttpClient) -> None:
    """Store prompts whose production version is not the newest, and items with the same texts."""
    for number, text in enumerate(TextSource(seed=1).texts(PROMPTS * VERSIONS, own_words=200)):
        name, version = f"p{number % PROMPTS}", number // PROMPTS
        body = {"text": text, "labels": ["production"] if version < VERSIONS - 2 else []}
        await client.call("PUT", f"/v1/prompts/{name}", body)
        item = {"namespace": ["prompts"], "key": name, "value": {"text": text}, "index": False}
        await client.call("PUT", "/v1/store/items", item)


async def measure(client: HttpClient, callers: int) -> dict[str, Timing]:
    """Read random prompts and items."""
    timings = {name: Timing(0, []) for name in PATHS}
    source = TextSource(seed=2)
    for name in [*PATHS] * ROUNDS:
        paths = map(PATHS[name].format, source.random_numbers(CALLS, PROMPTS))
        timing = await run((partial(client.call, "GET", path) for path in paths), callers)
        before = timings[name]
        latencies = before.latencies + timing.latencies
        timings[name] = Timing(before.seconds + timing.seconds, latencies)
    return timings


async def compare() -> None:
    """Measure both, and print the times."""
    rows = [["work", "callers", "/s", "p50 ms", "p99 ms"]]
    with server.memoryd(None, FAKE) as url:
        client = HttpClient(url)
        await load(client)
        for callers in CALLERS:
            for name, timing in (await measure(client, callers)).items():
                percentiles = [f"{timing.percentile_ms(percent):.2f}" for percent in (50, 99)]
                rows.append([name, str(callers), f"{timing.per_second:,.0f}", *percentiles])
        client.close()
    print(table(rows))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare())
