"""Puts, gets, searches and listings per second: memoryd, LangGraph's store, a bare handler.

python -m benchmarks.store [--items N ...] [--embedding fake|table] [--systems ...] [--quick]
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvloop

from benchmarks import server
from benchmarks.client import HttpClient
from benchmarks.data import (
    Item,
    Query,
    TextSource,
    batches,
    more_user_items,
    query_texts,
    user_items,
)
from benchmarks.measure import Call, Timing, run, table
from benchmarks.systems import HttpSystem, System, langgraph
from benchmarks.vectors import FAKE, TABLE

MEMORYD = "memoryd"
LANGGRAPH = "langgraph"
BARE = "bare"
SYSTEMS = [MEMORYD, LANGGRAPH, BARE]

USERS = 1_000
BATCH = 100
LOADERS = 4
CALLERS = [1, 16]
PICK_SEED = 6


@dataclass(frozen=True, slots=True)
class Load:
    """The items of a workload; `callers` make `calls` calls."""

    system: System
    items: list[Item]
    calls: int
    callers: int

    def pick_items(self) -> Iterator[Item]:
        """Yield a random stored item per call."""
        picks = TextSource(seed=PICK_SEED).random_numbers(self.calls, len(self.items))
        return (self.items[pick] for pick in picks)


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of call, the number of calls per caller, and the number of items per call."""

    name: str
    calls: Callable[[Load], Iterator[Call]]
    per_caller: dict[int, int]
    items_per_call: int = 1
    on_bare: bool = True


def _gets(load: Load) -> Iterator[Call]:
    return (partial(load.system.get, item.namespace, item.key) for item in load.pick_items())


def _searches(load: Load) -> Iterator[Call]:
    for item, text in zip(load.pick_items(), query_texts(load.calls), strict=True):
        yield partial(load.system.search, Query(item.namespace[:2], text))


def _puts(load: Load) -> Iterator[Call]:
    users = min(USERS, len(load.items))
    for item in more_user_items(load.calls, users, f"put{load.callers}x"):
        yield partial(load.system.put, item)


def _bulk_puts(load: Load) -> Iterator[Call]:
    users = min(USERS, len(load.items))
    items = list(more_user_items(load.calls * BATCH, users, f"bulk{load.callers}x"))
    return (partial(load.system.put_many, batch) for batch in batches(items, BATCH))


def _listings(load: Load, prefix: tuple[str, ...] | None, max_depth: int | None) -> Iterator[Call]:
    """Yield listings that differ in their limit: LangGraph would run equal ones only once."""
    for call in range(load.calls):
        yield partial(load.system.list_namespaces, prefix, max_depth, 100 - call % 16)


WORKS = [
    Work("get", _gets, {1: 3_000, 16: 600}),
    Work("search", _searches, {1: 1_000, 16: 150}),
    Work(
        "list prefix, depth 2",
        partial(_listings, prefix=("users",), max_depth=2),
        {1: 20, 16: 4},
        on_bare=False,
    ),
    Work(
        "list all",
        partial(_listings, prefix=None, max_depth=None),
        {1: 20, 16: 4},
        on_bare=False,
    ),
    Work("put", _puts, {1: 800, 16: 120}),
    Work(
        f"bulk put, {BATCH} a call",
        _bulk_puts,
        {1: 20, 16: 3},
        items_per_call=BATCH,
        on_bare=False,
    ),
]

Results = dict[tuple[int, str, int], dict[str, Timing]]


@asynccontextmanager
async def open_system(name: str, database_url: str, embedding: str) -> AsyncIterator[System]:
    """Open the named system on an empty database."""
    async with AsyncExitStack() as stack:
        if name == LANGGRAPH:
            yield await stack.enter_async_context(langgraph(database_url, embedding, ["text"]))
            return
        started = (
            server.memoryd(database_url, embedding)
            if name == MEMORYD
            else server.bare(database_url, embedding)
        )
        client = HttpClient(stack.enter_context(started))
        stack.callback(client.close)
        yield HttpSystem(client)


async def load(system: System, items: list[Item]) -> Timing:
    """Store every item in batches from a few callers."""
    return await run((partial(system.put_many, batch) for batch in batches(items, BATCH)), LOADERS)


async def measure(name: str, system: System, items: list[Item], share: float) -> Results:
    """Run every workload with every number of callers; `share` reduces the number of calls."""
    results: Results = {}
    for work in WORKS:
        if name == BARE and not work.on_bare:
            continue
        for callers in CALLERS:
            calls = max(1, round(work.per_caller[callers] * share)) * callers
            planned = list(work.calls(Load(system, items, calls, callers)))
            results[len(items), work.name, callers] = {name: await run(planned, callers)}
    return results


def _columns(work: Work, timing: Timing | None) -> list[str]:
    if timing is None:
        return ["-", "-", "-"]
    rate = timing.per_second * work.items_per_call
    return [f"{rate:,.0f}", f"{timing.percentile_ms(50):.2f}", f"{timing.percentile_ms(99):.2f}"]


def _ratio(timings: dict[str, Timing], other: str) -> str:
    if MEMORYD not in timings or other not in timings:
        return "-"
    return f"{timings[MEMORYD].per_second / timings[other].per_second:.2f}"


def report(results: Results) -> str:
    """Format all figures: rate in items, latencies in milliseconds of one call."""
    heading = ["work", "items", "callers"]
    for name in SYSTEMS:
        heading += [f"{name}/s", "p50 ms", "p99 ms"]
    rows = [[*heading, "x langgraph", "x bare"]]
    works = {work.name: work for work in WORKS}
    for (items, name, callers), timings in results.items():
        row = [name, f"{items:,}", str(callers)]
        for system in SYSTEMS:
            row += _columns(works[name], timings.get(system))
        rows.append([*row, _ratio(timings, LANGGRAPH), _ratio(timings, BARE)])
    return table(rows)


async def compare(arguments: argparse.Namespace) -> None:
    """Measure each system at each size, on one database engine, and print the table."""
    results: Results = {}
    share = 0.1 if arguments.quick else 1.0
    with server.engine() as engine:
        for count in arguments.items:
            items = user_items(count, min(USERS, count))
            for name in arguments.systems:
                database = f"{name}_{count}"
                url = engine.fresh_database(database)
                async with open_system(name, url, arguments.embedding) as system:
                    loading = await load(system, items)
                    print(f"{name}: loaded {count:,} items in {loading.seconds:.1f} s", flush=True)
                    engine.settle(database)
                    for key, timings in (await measure(name, system, items, share)).items():
                        results.setdefault(key, {}).update(timings)
                engine.drop_database(database)
    print(report(results))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=None)
    parser.add_argument("--embedding", choices=[FAKE, TABLE], default=FAKE)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--quick", action="store_true", help="2,000 items, a tenth of the calls")
    parsed = parser.parse_args()
    parsed.items = parsed.items or ([2_000] if parsed.quick else [10_000, 100_000])
    return parsed


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(arguments()))
