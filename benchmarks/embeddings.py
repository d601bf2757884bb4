"""The local model against sentence-transformers: one query's time, and texts a second.

    python -m benchmarks.embeddings TUNE_JSON [--reference-python PYTHON]

TUNE_JSON is a LoCoMo file; its turns are the texts and its questions the queries. PYTHON is the
interpreter of an environment with sentence-transformers and torch. The two take turns, several
times, and the best round of each counts: the machine's other work then disturbs both alike.
"""

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.providers.local_embedder import LocalEmbedder
from app.providers.model_files import published_file

_ROUNDS = 3
_QUERIES = 100

_REFERENCE = """
import json, statistics, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
work = json.load(sys.stdin)
def seconds(texts):
    began = time.perf_counter()
    model.encode(texts, batch_size=32, normalize_embeddings=True)
    return time.perf_counter() - began
seconds(work["queries"])
latency = statistics.median([seconds([query]) for query in work["queries"]])
print(json.dumps([latency, len(work["texts"]) / seconds(work["texts"])]))
"""


@dataclass(frozen=True)
class Figures:
    """A short query's median seconds, and texts a second in bulk."""

    latency: float
    throughput: float


async def measure_ours(texts: Sequence[str], queries: Sequence[str], cache_dir: Path) -> Figures:
    """Measure the local embedder in this process."""
    embedder = LocalEmbedder(cache_dir)
    await embedder.embed(queries)
    latencies = []
    for query in queries:
        began = time.perf_counter()
        await embedder.embed([query], kind="query")
        latencies.append(time.perf_counter() - began)
    began = time.perf_counter()
    await embedder.embed(texts)
    throughput = len(texts) / (time.perf_counter() - began)
    await embedder.aclose()
    return Figures(statistics.median(latencies), throughput)


def measure_reference(texts: Sequence[str], queries: Sequence[str], python: str) -> Figures:
    """Measure sentence-transformers on torch in a process of its own."""
    answer = subprocess.run(
        [python, "-c", _REFERENCE, str(published_file(""))],
        input=json.dumps({"texts": texts, "queries": queries}),
        env={"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return Figures(*json.loads(answer.stdout))


def best(rounds: Sequence[Figures]) -> Figures:
    """Return the best of each figure."""
    return Figures(
        min(figures.latency for figures in rounds), max(figures.throughput for figures in rounds)
    )


def report(label: str, figures: Figures) -> None:
    """Print one line."""
    query = f"{figures.latency * 1000:.2f} ms"
    print(f"{label:<24} one query {query:>9}   bulk {figures.throughput:6.0f} texts/s")


def resident_memory() -> str:
    """Return this process's resident memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        return "unknown on this system"
    kibibytes = int(status.read_text().partition("VmRSS:")[2].split()[0])
    return f"{kibibytes / 1024:.0f} MiB"


def processor() -> str:
    """Return the processor's name and whether it multiplies 8-bit integers at full speed."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    name = text.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    vnni = any(flag in text for flag in ("avx512_vnni", "avx_vnni"))
    return f"{name or platform.processor()}, VNNI: {'yes' if vnni else 'no'}"


def texts_of(path: Path) -> tuple[list[str], list[str]]:
    """Return the turns and the first questions of a LoCoMo file."""
    conversations = json.loads(path.read_text(encoding="utf-8"))
    turns = [
        turn["text"]
        for conversation in conversations
        for session in conversation["sessions"]
        for turn in session["turns"]
    ]
    questions = [
        question["question"]
        for conversation in conversations
        for question in conversation["questions"]
    ]
    return turns, questions[:_QUERIES]


def compare(
    turns: list[str], queries: list[str], python: str | None
) -> Iterator[tuple[str, Figures]]:
    """Yield the figures of each contestant, measured in turns."""
    ours, reference = [], []
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(_ROUNDS):
            ours.append(asyncio.run(measure_ours(turns, queries, Path(directory))))
            if python:
                reference.append(measure_reference(turns, queries, python))
    yield "memoryd", best(ours)
    if reference:
        yield "sentence-transformers", best(reference)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tune_json", type=Path)
    parser.add_argument("--reference-python")
    arguments = parser.parse_args()
    turns, queries = texts_of(arguments.tune_json)
    print(f"{processor()}; {len(turns)} texts, {len(queries)} queries, best of {_ROUNDS} rounds")
    results = dict(compare(turns, queries, arguments.reference_python))
    for label, figures in results.items():
        report(label, figures)
    if (reference := results.get("sentence-transformers")) is not None:
        ours = results["memoryd"]
        print(
            f"{'ratio':<24} one query {reference.latency / ours.latency:6.1f} x   "
            f"  bulk {ours.throughput / reference.throughput:6.2f} x"
        )
    print(f"resident memory of this process: {resident_memory()}")


if __name__ == "__main__":
    main()
