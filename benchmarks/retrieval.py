"""Retrieval quality: run searches, score the results, and estimate confidence intervals."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks import server
from benchmarks.client import HttpClient
from benchmarks.data import Item, Query, batches
from benchmarks.measure import Timing, run, table
from benchmarks.systems import HttpSystem, LangGraphSystem, System, langgraph
from benchmarks.vectors import LOCAL

LANGGRAPH = "langgraph"
MODES = {
    "memoryd vector": {"mode": "vector"},
    "memoryd text": {"mode": "text"},
    "memoryd hybrid": {"mode": "hybrid"},
}
ALL = "all"
BATCH = 100
RESAMPLES = 10_000

Scores: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """A search, the expected keys, and a key that must not come before them."""

    category: str
    query: Query
    expected: frozenset[str]
    opposite: str | None = None


Score: TypeAlias = Callable[[Question, Sequence[str]], float]
"""Scores the keys found for a question, best first; NaN if the measure does not apply."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The keys found for every question, best first, and how long the searches took."""

    found: list[list[str]]
    searches: Timing


def recall(cut: int) -> Score:
    """Score the share of the expected keys among the first `cut`."""
    return lambda question, found: (
        len(question.expected.intersection(found[:cut])) / len(question.expected)
    )


def hit(cut: int) -> Score:
    """Score whether any expected key is among the first `cut`."""
    return lambda question, found: float(not question.expected.isdisjoint(found[:cut]))


def before_opposite(question: Question, found: Sequence[str]) -> float:
    """Score whether an expected key was found, and before the opposite."""
    if question.opposite is None:
        return math.nan
    first = next((key for key in found if key in {*question.expected, question.opposite}), None)
    return float(first in question.expected)


async def load(name: str, system: System, items: Sequence[Item]) -> None:
    """Store items and print the time."""
    timing = await run((partial(system.put_many, batch) for batch in batches(items, BATCH)), 1)
    print(f"{name}: loaded {len(items):,} items in {timing.seconds:.1f} s", flush=True)


async def ask(system: System, questions: Sequence[Question]) -> Answers:
    """Run every question's search, one after another."""
    found: list[list[str]] = []

    async def search(question: Question) -> None:
        found.append([key for _, key in await system.search(question.query)])

    searches = await run((partial(search, question) for question in questions), 1)
    return Answers(found, searches)


async def ask_variants(
    system: HttpSystem, variants: dict[str, dict[str, Any]], questions: Sequence[Question]
) -> dict[str, Answers]:
    """Run every question's search with the additional fields of each variant."""
    return {
        name: await ask(replace(system, search_fields=fields), questions)
        for name, fields in variants.items()
    }


@asynccontextmanager
async def memoryd(url: str | None, index: Sequence[str] | None) -> AsyncIterator[HttpSystem]:
    """Open memoryd at a URL, or one started for the run, with the local model."""
    async with AsyncExitStack() as stack:
        if url is None:
            url = stack.enter_context(server.memoryd(None, LOCAL))
        client = HttpClient(url)
        stack.callback(client.close)
        yield HttpSystem(client, None if index is None else tuple(index))


@asynccontextmanager
async def reference(index: Sequence[str] | None) -> AsyncIterator[LangGraphSystem]:
    """Open LangGraph's store on a fresh database, with the same model."""
    with server.engine() as engine:
        url = engine.fresh_database(LANGGRAPH)
        async with langgraph(url, LOCAL, list(index or ["$"])) as system:
            yield system


def report(
    answers: dict[str, Answers], questions: Sequence[Question], measures: dict[str, Score]
) -> str:
    """Format each category's means, their differences from the first system, and the times."""
    scores = {
        name: {
            measure: np.array(
                [score(q, keys) for q, keys in zip(questions, answer.found, strict=True)]
            )
            for measure, score in measures.items()
        }
        for name, answer in answers.items()
    }
    base, *others = scores
    means = [["system", "category", "questions", *measures]]
    differences = [[f"less {base}", "category", "questions", *measures]]
    for category in [ALL, *dict.fromkeys(question.category for question in questions)]:
        chosen = np.array([category in (ALL, question.category) for question in questions])
        count = str(np.count_nonzero(chosen))
        for name, values in scores.items():
            cells = [interval(values[measure][chosen]) for measure in measures]
            means.append([name, category, count, *cells])
        for name in others:
            gains = [scores[name][measure] - scores[base][measure] for measure in measures]
            cells = [interval(gain[chosen], sign="+") for gain in gains]
            differences.append([name, category, count, *cells])
    times = [["search", "p50 ms", "p99 ms"]]
    for name, answer in answers.items():
        times.append([name, *(f"{answer.searches.percentile_ms(p):.1f}" for p in (50, 99))])
    return "\n\n".join(table(rows) for rows in (means, differences, times))


def interval(values: Scores, sign: str = "") -> str:
    """Return the mean with its bootstrap 95 % confidence interval over questions."""
    values = values[~np.isnan(values)]
    if not len(values):
        return "-"
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
