"""The share of the true nearest neighbors that a search returns, compared with a full scan.

python -m benchmarks.recall [--items N] [--queries N] [--embedding fake|table] [--systems ...]
"""

import argparse
import asyncio
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks import server
from benchmarks.data import FILTER_BUCKETS, UNEVEN, Item, Query, query_texts, uneven_items
from benchmarks.measure import Timing, run, table
from benchmarks.store import LANGGRAPH, MEMORYD, load, open_system
from benchmarks.systems import Found, HttpSystem, System
from benchmarks.vectors import FAKE, TABLE, Vectors, embedding

LIMIT = 10
SYSTEMS = [MEMORYD, LANGGRAPH]
FILTERED = "common prefix, filter keeps 1 %"

# Items as near as the last true neighbor, but for rounding, are equally right.
TOLERANCE = 2e-4

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of queries over one part of the items, with each query's rows."""

    name: str
    queries: list[Query]
    rows: list[Rows]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one system in one scope."""

    recall: float
    returned: float
    timing: Timing


class Truth:
    """All stored vectors, which are compared with every query."""

    def __init__(self, items: list[Item], stored: Vectors, queries: Vectors) -> None:
        self._stored = stored
        self._queries = queries
        self._numbers = {(item.namespace, item.key): n for n, item in enumerate(items)}

    def recall(self, query: int, rows: Rows, found: Found) -> float:
        """Return the share of the nearest rows to a query, by its number, that were found."""
        target = self._queries[query]
        nearest = np.sort(self._stored[rows] @ target)[::-1][:LIMIT]
        numbers = [self._numbers[place] for place in found]
        right = self._stored[numbers] @ target >= nearest[-1] - TOLERANCE
        return float(np.count_nonzero(right)) / len(nearest)


def scopes(items: list[Item], texts: list[str]) -> list[Scope]:
    """Return the scopes to search, each with every text."""
    labels = np.array([item.namespace[1] for item in items])
    buckets = np.array([item.value["bucket"] for item in items])
    everything = np.arange(len(items))
    found = []
    for label, (namespaces, size) in UNEVEN.items():
        names = [f"{label}{n % namespaces:03d}" for n in range(len(texts))]
        queries = [
            Query(("recall", name), text, limit=LIMIT)
            for name, text in zip(names, texts, strict=True)
        ]
        rows = [np.flatnonzero(labels == name) for name in names]
        name = f"one of {namespaces:,} with {size:,} of 100,000"
        found.append(Scope(name, queries, rows))
    filtered = [
        Query(("recall",), text, {"bucket": n % FILTER_BUCKETS}, LIMIT)
        for n, text in enumerate(texts)
    ]
    of_bucket = [np.flatnonzero(buckets == bucket) for bucket in range(FILTER_BUCKETS)]
    rows_of = [of_bucket[n % FILTER_BUCKETS] for n in range(len(texts))]
    found.append(Scope(FILTERED, filtered, rows_of))
    whole = [Query(("recall",), text, limit=LIMIT) for text in texts]
    found.append(Scope("common prefix, everything", whole, [everything] * len(texts)))
    return found


async def measure(system: System, scope: Scope, truth: Truth) -> Outcome:
    """Run a scope's queries one after another."""
    answers: list[tuple[int, Found]] = []

    async def ask(number: int) -> None:
        answers.append((number, await system.search(scope.queries[number])))

    timing = await run((partial(ask, number) for number in range(len(scope.queries))), 1)
    recalls = [truth.recall(n, scope.rows[n], found) for n, found in answers]
    returned = float(np.mean([len(found) for _, found in answers]))
    return Outcome(float(np.mean(recalls)), returned, timing)


def report(results: dict[str, dict[str, Outcome]], scopes: list[Scope]) -> str:
    """Format recall, results returned and latency of every scope and system."""
    columns = list(results)
    heading = ["scope", "rows"]
    for column in columns:
        heading += [f"{column} recall", "returned", "p50 ms", "p99 ms"]
    lines = [heading]
    for scope in scopes:
        line = [scope.name, f"{np.mean([len(rows) for rows in scope.rows]):,.0f}"]
        for column in columns:
            outcome = results[column][scope.name]
            timing = outcome.timing
            line += [f"{outcome.recall:.3f}", f"{outcome.returned:.1f}"]
            line += [f"{timing.percentile_ms(50):.2f}", f"{timing.percentile_ms(99):.2f}"]
        lines.append(line)
    return table(lines)


def search_by_vector(system: System) -> System:
    """Have memoryd search by vector only, like the full scan."""
    if isinstance(system, HttpSystem):
        return replace(system, search_fields={"mode": "vector"})
    return system


async def compare(arguments: argparse.Namespace) -> None:
    """Load both systems with the same uneven namespaces and search them."""
    items = uneven_items(arguments.items)
    texts = query_texts(arguments.queries)
    parts = scopes(items, texts)
    embed = embedding(arguments.embedding)
    stored = await embed([item.value["text"] for item in items])
    truth = Truth(items, stored, await embed(texts))
    results: dict[str, dict[str, Outcome]] = {}
    with server.engine() as engine:
        for name in arguments.systems:
            url = engine.fresh_database(f"recall_{name}")
            async with open_system(name, url, arguments.embedding) as opened:
                system = search_by_vector(opened)
                timing = await load(system, items)
                print(f"{name}: loaded {len(items):,} items in {timing.seconds:.1f} s", flush=True)
                engine.settle(f"recall_{name}")
                results[name] = {part.name: await measure(system, part, truth) for part in parts}
            engine.drop_database(f"recall_{name}")
    print(report(results, parts))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--embedding", choices=[FAKE, TABLE], default=FAKE)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(arguments()))
