"""Recall of the evidence turns in LoCoMo's conversations, part by part of memoryd's search.

python -m benchmarks.locomo PATH [--url URL] [--index FIELD ...] [--reference]

PATH is a file of conversations; it stays where it is. Every turn is stored as one item and every
question of categories 1 to 4 is one search. The recall of a question is the share of its evidence
turns among the first k results.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.data import Item, Query
from benchmarks.retrieval import (
    LANGGRAPH,
    MODES,
    Answers,
    Question,
    ask,
    ask_variants,
    load,
    memoryd,
    recall,
    reference,
    report,
)

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
CUTS = [5, 10, 20]
IN_THREADS: dict[str, dict[str, Any]] = {
    "memoryd hybrid, threads": {},
    "memoryd hybrid, threads, recency": {"weights": {"relevance": 1, "recency": 0.05}},
}


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
                CATEGORIES[question["category"]],
                Query(("locomo", conversation["id"]), question["question"], limit=max(CUTS)),
                frozenset(question["evidence"]),
            )


async def compare(arguments: argparse.Namespace) -> None:
    """Measure LangGraph's store if requested, then memoryd's variants, and print them."""
    conversations = json.loads(arguments.path.read_text())
    items = [item for conversation in conversations for item in turns(conversation)]
    asked = [question for conversation in conversations for question in questions(conversation)]
    independent = [replace(item, source=None) for item in items]
    answers: dict[str, Answers] = {}
    if arguments.reference:
        async with reference(arguments.index) as system:
            await load(LANGGRAPH, system, independent)
            answers[LANGGRAPH] = await ask(system, asked)
    async with memoryd(arguments.url, arguments.index) as system:
        await load("memoryd, independent items", system, independent)
        answers |= await ask_variants(system, MODES, asked)
        await load("memoryd, the same in threads", system, items)
        answers |= await ask_variants(system, IN_THREADS, asked)
    print(f"\n{report(answers, asked, {f'recall@{cut}': recall(cut) for cut in CUTS})}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo", description=__doc__)
    parser.add_argument("path", type=Path, help="conversations, as JSON")
    parser.add_argument("--url", help="a running memoryd; none: one is started for the run")
    parser.add_argument("--index", nargs="+", metavar="FIELD", help="fields to embed; none: all")
    parser.add_argument("--reference", action="store_true", help="also measure LangGraph's store")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare(arguments()))
