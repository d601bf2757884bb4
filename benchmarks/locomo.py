"""Recall of the evidence turns in LoCoMo's conversations, of memoryd and of LangGraph's store.

python -m benchmarks.locomo PATH [--url URL] [--threads] [--index FIELD ...] [--reference]

PATH is a file of conversations; it stays where it is. Every turn is stored as one item and every
question of categories 1 to 4 is one search. The recall of a question is the share of its evidence
turns among the first k results.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import server
from benchmarks.client import HttpClient
from benchmarks.data import Item, Query, batches
from benchmarks.measure import Timing, run, table
from benchmarks.systems import HttpSystem, System, langgraph
from benchmarks.vectors import LOCAL

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
CUTS = [5, 10, 20]
BATCH = 100
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """A search and the keys it ought to find."""

    query: Query
    category: int
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every question's recall at every cut, and how long loading and searching took."""

    recalls: dict[int, list[float]]
    load_seconds: float
    searches: Timing


def turns(conversation: dict[str, Any]) -> Iterator[Item]:
    """Yield one item per turn; a shared picture's caption is part of the text."""
    name = conversation["id"]
    for session in conversation["sessions"]:
        for position, turn in enumerate(session["turns"]):
            caption = turn.get("blip_caption")
            value = {
                "speaker": turn["speaker"],
                "text": f"{turn['text']} [picture: {caption}]" if caption else turn["text"],
                "date_time": session["date_time"],
            }
            source = {"thread_id": f"{name}-{session['session']}", "position": position}
            yield Item(("locomo", name), turn["dia_id"], value, source)


def questions(conversation: dict[str, Any]) -> Iterator[Question]:
    """Yield the questions that have an answer."""
    for question in conversation["questions"]:
        if question["category"] in CATEGORIES and question["evidence"]:
            yield Question(
                Query(("locomo", conversation["id"]), question["question"], limit=max(CUTS)),
                question["category"],
                frozenset(question["evidence"]),
            )


async def measure(system: System, items: list[Item], asked: list[Question]) -> Outcome:
    """Store every turn, then ask every question, one after another."""
    loading = await run((partial(system.put_many, batch) for batch in batches(items, BATCH)), 1)
    found: list[list[str]] = []

    async def ask(question: Question) -> None:
        found.append([key for _, key in await system.search(question.query)])

    searches = await run((partial(ask, question) for question in asked), 1)
    recalls = {
        cut: [
            len(question.evidence.intersection(keys[:cut])) / len(question.evidence)
            for question, keys in zip(asked, found, strict=True)
        ]
        for cut in CUTS
    }
    return Outcome(recalls, loading.seconds, searches)


def interval(recalls: list[float]) -> str:
    """Return the mean with its bootstrap 95 % confidence interval over questions."""
    values = np.array(recalls)
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def report(outcomes: dict[str, Outcome], asked: list[Question]) -> str:
    """Lay out recall overall and per category, then the times."""
    rows = [["system", "category", "questions", *(f"recall@{cut}" for cut in CUTS)]]
    for name, outcome in outcomes.items():
        for category, label in [(None, "all"), *CATEGORIES.items()]:
            chosen = [n for n, q in enumerate(asked) if category in (None, q.category)]
            if chosen:
                cells = [interval([outcome.recalls[cut][n] for n in chosen]) for cut in CUTS]
                rows.append([name, label, str(len(chosen)), *cells])
    times = [["system", "load s", "search p50 ms", "search p99 ms"]]
    for name, outcome in outcomes.items():
        latencies = [f"{outcome.searches.percentile_ms(percent):.1f}" for percent in (50, 99)]
        times.append([name, f"{outcome.load_seconds:.1f}", *latencies])
    return f"{table(rows)}\n\n{table(times)}"


@asynccontextmanager
async def _memoryd(url: str | None, index: list[str] | None) -> AsyncIterator[System]:
    async with AsyncExitStack() as stack:
        if url is None:
            url = stack.enter_context(server.memoryd(None, LOCAL))
        client = HttpClient(url)
        stack.callback(client.close)
        yield HttpSystem(client, None if index is None else tuple(index))


async def compare(arguments: argparse.Namespace) -> None:
    """Measure memoryd, and LangGraph's store where asked for, and print both."""
    conversations = json.loads(arguments.path.read_text())
    items = [item for conversation in conversations for item in turns(conversation)]
    asked = [question for conversation in conversations for question in questions(conversation)]
    independent = [replace(item, source=None) for item in items]
    outcomes = {}
    async with _memoryd(arguments.url, arguments.index) as system:
        stored = items if arguments.threads else independent
        outcomes["memoryd"] = await measure(system, stored, asked)
    if arguments.reference:
        with server.engine() as engine:
            url = engine.fresh_database("langgraph")
            fields = arguments.index or ["$"]
            async with langgraph(url, LOCAL, fields) as reference:
                outcomes["langgraph"] = await measure(reference, independent, asked)
    print(report(outcomes, asked))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo", description=__doc__)
    parser.add_argument("path", type=Path, help="conversations, as JSON")
    parser.add_argument("--url", help="a running memoryd; none: one is started for the run")
    parser.add_argument("--threads", action="store_true", help="tell memoryd each turn's thread")
    parser.add_argument("--index", nargs="+", metavar="FIELD", help="fields to embed; none: all")
    parser.add_argument("--reference", action="store_true", help="also measure LangGraph's store")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(arguments()))
