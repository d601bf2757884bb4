"""Searches that LoCoMo lacks, on memories of our own making: identifiers, negation and more.

python -m benchmarks.probes [--url URL] [--reference]

Every file in probe_data is one category: a namespace of memories, many of them near misses on
purpose, and the queries with the keys they ought to find.
"""

import argparse
import asyncio
import json
from pathlib import Path

import uvloop

from benchmarks.data import Item, Query
from benchmarks.retrieval import (
    LANGGRAPH,
    MODES,
    Answers,
    Question,
    ask,
    ask_variants,
    before_opposite,
    hit,
    load,
    memoryd,
    recall,
    reference,
    report,
)

INDEX = ["content"]
LIMIT = 10
MEASURES = {
    "hit@1": hit(1),
    "hit@5": hit(5),
    "recall@10": recall(10),
    "before opposite": before_opposite,
}
DATA = Path(__file__).with_name("probe_data")


def read(path: Path) -> tuple[list[Item], list[Question]]:
    """Return a category's memories and its questions."""
    data = json.loads(path.read_text())
    category = path.stem
    namespace = ("probes", category)
    items = [Item(namespace, key, {"content": text}) for key, text in data["memories"].items()]
    questions = [
        Question(
            category,
            Query(namespace, query["query"], limit=LIMIT),
            frozenset(query["expected"]),
            query.get("opposite"),
        )
        for query in data["queries"]
    ]
    return items, questions


async def compare(arguments: argparse.Namespace) -> None:
    """Measure LangGraph's store if requested, then memoryd's modes, and print them."""
    probes = [read(path) for path in sorted(DATA.glob("*.json"))]
    items = [item for memories, _ in probes for item in memories]
    asked = [question for _, questions in probes for question in questions]
    answers: dict[str, Answers] = {}
    if arguments.reference:
        async with reference(INDEX) as system:
            await load(LANGGRAPH, system, items)
            answers[LANGGRAPH] = await ask(system, asked)
    async with memoryd(arguments.url, INDEX) as system:
        await load("memoryd", system, items)
        answers |= await ask_variants(system, MODES, asked)
    print(f"\n{report(answers, asked, MEASURES)}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--url", help="a running memoryd; none: one is started for the run")
    parser.add_argument("--reference", action="store_true", help="also measure LangGraph's store")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(arguments()))
