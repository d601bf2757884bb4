"""A million passages: time to build, size on disk, memory, search in scopes of any size, puts.

python -m benchmarks.scale [--passages N]
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from app.db.database import ALL_ROOTS, Database
from benchmarks import server
from benchmarks.client import HttpClient, UnexpectedAnswerError
from benchmarks.data import FILTER_BUCKETS, Item, Query, TextSource, batches, query_texts
from benchmarks.measure import Call, Timing, run, table
from benchmarks.recall import LIMIT, TOLERANCE
from benchmarks.scale_footprint import memory, settings, sizes
from benchmarks.scale_load import (
    COMMON,
    LARGE,
    LEAST,
    MIDDLE,
    PREFIX,
    SMALL,
    Layout,
    fill,
    item,
    layout,
)
from benchmarks.systems import Found, HttpSystem
from benchmarks.vectors import FAKE, Vectors, embedding

DATABASE = "scale"
MODES = ["hybrid", "vector", "text"]
CALLERS = [1, 16]
QUERIES = 200
CALLS = 800
SECONDS = 10
"""Maximum calls of searches, or of puts, per number of callers; slow scopes get fewer."""

COMPARED = 50
"""Number of queries compared with a full scan."""

EXPLAINED = 20
"""Number of searches that warm up a scope and show its search method."""

NEW_ITEMS = 20_000
BULK = 100

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scope:
    """A kind of scope: a search of it for each query text, and the numbers of its items."""

    name: str
    queries: list[Query]
    items: Callable[[Query], Numbers]

    @property
    def size(self) -> int:
        """How many items a search is about."""
        return len(self.items(self.queries[0]))


def scopes(placed: Layout, texts: list[str]) -> list[Scope]:
    """Return the scopes to search, from small to all items."""
    small = placed.below(SMALL)
    picked = TextSource(seed=9).random_numbers(len(texts), len(small))
    everything = np.arange(len(placed.namespace_of))

    def of_namespace(query: Query) -> Numbers:
        return placed.items_in(query.namespace)

    def of_bucket(query: Query) -> Numbers:
        assert query.filter is not None
        return everything[query.filter["bucket"] :: FILTER_BUCKETS]

    def in_namespace(name: str, namespaces: Iterable[tuple[str, ...]]) -> Scope:
        pairs = zip(namespaces, texts, strict=False)
        return Scope(name, [Query(labels, text) for labels, text in pairs], of_namespace)

    filtered = [Query(PREFIX, text, {"bucket": n % 100}) for n, text in enumerate(texts)]
    whole = [Query(PREFIX, text) for text in texts]
    return [
        in_namespace("small namespaces", [small[pick] for pick in picked]),
        in_namespace("middle namespace", cycle([MIDDLE])),
        in_namespace("large namespace", cycle([LARGE])),
        Scope("everything", whole, lambda _: everything),
        Scope("everything, filter keeps 1 %", filtered, of_bucket),
    ]


def similarities(stored: Path, queries: Vectors) -> Vectors:
    """Compare every query with every stored vector."""
    vectors = np.load(stored, mmap_mode="r")
    blocks = (vectors[start : start + 50_000] for start in range(0, len(vectors), 50_000))
    return np.concatenate([queries @ block.astype(np.float32).T for block in blocks], axis=1)


def recall(similarity: Vectors, among: Numbers, found: Found) -> float:
    """Return the share of one query's nearest items that were found; keys contain their numbers."""
    tenth = np.sort(similarity[among])[::-1][:LIMIT][-1]
    numbers = [int(key[1:]) for _, key in found]
    return float(np.count_nonzero(similarity[numbers] >= tenth - TOLERANCE)) / LIMIT


async def mean_recall(system: HttpSystem, scope: Scope, similarity: Vectors) -> float:
    """Search by meaning for each compared query."""
    recalls = []
    for query, to_all in zip(scope.queries, similarity, strict=False):
        recalls.append(recall(to_all, scope.items(query), await system.search(query)))
    return float(np.mean(recalls))


async def find_search_methods(client: HttpClient, mode: str, queries: list[Query]) -> str:
    """Return the server's search method in a scope, with counts if it varies."""
    counted: Counter[str] = Counter()
    for query in queries:
        body: dict[str, Any] = {"namespace_prefix": query.namespace, "query": query.text}
        body |= {"filter": query.filter, "mode": mode, "explain": True}
        answer = await client.call("POST", "/v1/store/items/search", body)
        counted[answer["search"]["scope"]] += 1
    if len(counted) == 1:
        return next(iter(counted))
    return ", ".join(f"{way} {count}" for way, count in counted.most_common())


async def run_for(calls: Iterable[Call], callers: int) -> Timing:
    """Make calls until none are left or the time is over."""
    until = time.perf_counter() + SECONDS
    return await run(takewhile(lambda _: time.perf_counter() < until, calls), callers)


async def measure_searches(client: HttpClient, parts: list[Scope], similarity: Vectors) -> None:
    """Search every scope in every mode and print the tables; failures are printed and left out."""
    lines = [["scope", "items", "mode", "way", "callers", "calls", "/s", "p50 ms", "p99 ms"]]
    found = [["scope", "items", f"recall@{LIMIT}"]]
    for part in parts:
        for mode in MODES:
            system = HttpSystem(client, search_fields={"mode": mode})
            try:
                way = await find_search_methods(client, mode, part.queries[:EXPLAINED])
                for callers in CALLERS:
                    calls = (partial(system.search, query) for query in cycle(part.queries))
                    timing = await run_for(islice(calls, CALLS), callers)
                    lines.append(
                        [part.name, f"{part.size:,}", mode, way, *_figures(timing, callers)]
                    )
                if mode == "vector":
                    share = await mean_recall(system, part, similarity)
                    found.append([part.name, f"{part.size:,}", f"{share:.3f}"])
            except* UnexpectedAnswerError as errors:
                print(f"{part.name}, {mode}: {errors.exceptions[0]}", flush=True)
    print(table(lines), table(found), sep="\n\n", end="\n\n", flush=True)


def _figures(timing: Timing, callers: int, items_a_call: int = 1) -> list[str]:
    rate = timing.per_second * items_a_call
    percentiles = (f"{timing.percentile_ms(percent):.2f}" for percent in (50, 99))
    return [str(callers), str(len(timing.latencies)), f"{rate:,.1f}", *percentiles]


def new_items(placed: Layout, batch: str) -> list[Item]:
    """Return items for random common namespaces, with keys that no other `batch` has."""
    namespaces = placed.below(COMMON)
    source = TextSource(seed=10)
    texts = source.texts(NEW_ITEMS)
    picks = source.random_numbers(len(texts), len(namespaces))
    return [
        item(namespaces[pick], number, text, batch)
        for number, (text, pick) in enumerate(zip(texts, picks, strict=True))
    ]


async def measure_puts(client: HttpClient, placed: Layout) -> None:
    """Put items while every index is kept, and print the table."""
    system = HttpSystem(client)
    lines = [["work", "callers", "calls", "items/s", "p50 ms", "p99 ms"]]
    for callers in CALLERS:
        single = [partial(system.put, one) for one in new_items(placed, f"put{callers}x")]
        timing = await run_for(single, callers)
        lines.append(["put", *_figures(timing, callers)])
        in_batches = batches(new_items(placed, f"bulk{callers}x"), BULK)
        bulk = (partial(system.put_many, batch) for batch in in_batches)
        timing = await run_for(bulk, callers)
        lines.append([f"bulk put, {BULK} a call", *_figures(timing, callers, BULK)])
    print(table(lines), end="\n\n", flush=True)


async def measure(url: str, vectors: Path, count: int) -> None:
    """Serve a filled database, search it, and add to it."""
    texts = query_texts(QUERIES)
    similarity = similarities(vectors, await embedding(FAKE)(texts[:COMPARED]))
    placed = layout(count)
    parts = scopes(placed, texts)
    database = await Database.open(url, pool_size=1)
    try:
        async with database.connection(ALL_ROOTS) as connection:
            taken = (await sizes(connection, count), await settings(connection))
            print(*taken, sep="\n\n", end="\n\n", flush=True)
        with server.memoryd(url, FAKE) as address:
            client = HttpClient(address)
            warm = HttpSystem(client, search_fields={"mode": "vector"})
            await run((partial(warm.search, query) for query in parts[0].queries), 1)
            await measure_searches(client, parts, similarity)
            await measure_puts(client, placed)
            print(await memory(database, address))
            client.close()
    finally:
        await database.close()


def _load_times(seconds: dict[str, float], count: int) -> str:
    lines = [[name, f"{taken:,.1f}", f"{count / taken:,.0f}"] for name, taken in seconds.items()]
    return table([["load", "seconds", "passages/s"], *lines])


async def benchmark(arguments: argparse.Namespace) -> None:
    """Load a fresh database, settle it and measure."""
    with server.engine() as engine, tempfile.TemporaryDirectory() as folder:
        url = engine.fresh_database(DATABASE)
        vectors = Path(folder) / "vectors.npy"
        seconds = await fill(url, vectors, arguments.passages)
        began = time.perf_counter()
        engine.settle(DATABASE)
        seconds["vacuum and analyze"] = time.perf_counter() - began
        print(_load_times(seconds, arguments.passages), end="\n\n", flush=True)
        await measure(url, vectors, arguments.passages)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000, help=f"at least {LEAST:,}")
    parsed = parser.parse_args()
    if parsed.passages < LEAST:
        parser.error(f"--passages must be at least {LEAST:,}")
    return parsed


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(benchmark(arguments()))
