"""Memories that a real model extracts, judged blind; see the README of this folder.

python -m benchmarks.formation run SYSTEM PATH FOLDER | judge FOLDER RUN... | score FOLDER
    | questions FOLDER
"""

import argparse
import asyncio
import json
import sys
from contextlib import closing
from pathlib import Path

from benchmarks.client import HttpClient
from benchmarks.formation.conversations import OURS, Conversation, load
from benchmarks.formation.counts import count
from benchmarks.formation.judge import prepare
from benchmarks.formation.langmem import LangMem
from benchmarks.formation.memoryd import Memoryd
from benchmarks.formation.questions import compare
from benchmarks.formation.records import write_answers, write_counts, write_memories
from benchmarks.formation.score import IncompleteVerdictError, score

MEMORYD, VERBATIM, LANGMEM = "memoryd", "verbatim", "langmem"


async def run(arguments: argparse.Namespace) -> None:
    """Run a system on a conversation, or go on with a run, and write its files."""
    conversation = _load(arguments.folder)
    with closing(HttpClient(arguments.url)) as client:
        system = _open(arguments, client)
        await system.run(conversation)
        memories = await system.export()
        answers = await system.ask(conversation.questions)
    write_memories(arguments.folder, memories)
    write_answers(arguments.folder, answers)
    counts = await count(conversation, memories, answers) | system.count_usage()
    write_counts(arguments.folder, counts)
    print(json.dumps(counts, indent=1, ensure_ascii=False))


def _choose(arguments: argparse.Namespace) -> None:
    """Note the conversation in the run's folder, for the judge's files."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    chosen = {
        "path": str(arguments.path.resolve()),
        "conversation": arguments.conversation,
        "sessions": arguments.sessions,
    }
    (arguments.folder / "run.json").write_text(json.dumps(chosen, indent=1))


def _open(arguments: argparse.Namespace, client: HttpClient) -> Memoryd | LangMem:
    folder: Path = arguments.folder
    manager = json.loads(arguments.manager)
    if arguments.system == LANGMEM:
        return LangMem(folder.name, folder, arguments.model, arguments.timeout, manager)
    if arguments.system == VERBATIM:
        manager["strategy"] = VERBATIM
    return Memoryd(client, folder.name, folder, manager, json.loads(arguments.search))


def _load(folder: Path) -> Conversation:
    chosen = json.loads((folder / "run.json").read_text())
    return load(Path(chosen["path"]), chosen["conversation"], chosen["sessions"])


def judge(arguments: argparse.Namespace) -> None:
    """Write the files of a blind judge for several runs on one conversation."""
    facts = json.loads(arguments.facts.read_text()) if arguments.facts else []
    prepare(arguments.folder, arguments.runs, _load(arguments.runs[0]), facts)
    print(f"give {arguments.folder / 'judge'} to a judge who has not seen the runs")


async def compare_questions(arguments: argparse.Namespace) -> None:
    """Print the recall of a finished run with and without the questions of its memories."""
    with closing(HttpClient(arguments.url)) as client:
        effect = await compare(client, arguments.folder.name, _load(arguments.folder))
    print(effect.as_table())


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a system, or go on with its run")
    run.add_argument("system", choices=[MEMORYD, VERBATIM, LANGMEM])
    run.add_argument("path", type=Path, help=f"conversations, as JSON; ours: {OURS.name}")
    run.add_argument("folder", type=Path, help="the run's files; its name is the run's name")
    run.add_argument("--conversation", metavar="ID", help="absent: the first of the file")
    run.add_argument("--sessions", type=int, metavar="N", help="only the first N sessions")
    run.add_argument("--url", default="http://127.0.0.1:8080", help="the running memoryd")
    run.add_argument("--manager", default="{}", help="manager_config or LangMem's options, as JSON")
    run.add_argument("--search", default="{}", help="further members of searches, as JSON")
    run.add_argument("--model", default="any", help="LangMem's model at ANTHROPIC_BASE_URL")
    run.add_argument("--timeout", type=float, default=3_600, help="seconds for LangMem's model")
    judge = commands.add_parser("judge", help="write the files of a blind judge")
    judge.add_argument("folder", type=Path)
    judge.add_argument("runs", type=Path, nargs="+", help="folders of runs on one conversation")
    judge.add_argument("--facts", type=Path, help="a JSON list of facts; absent: the judge's own")
    questions = commands.add_parser("questions", help="searches with and without questions")
    questions.add_argument("folder", type=Path, help="a finished run of memoryd")
    questions.add_argument("--url", default="http://127.0.0.1:8080", help="the running memoryd")
    score = commands.add_parser("score", help="print the table of a judged comparison")
    score.add_argument("folder", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run the command."""
    arguments = read_arguments()
    if arguments.command == "run":
        _choose(arguments)
        asyncio.run(run(arguments))
    elif arguments.command == "judge":
        judge(arguments)
    elif arguments.command == "questions":
        asyncio.run(compare_questions(arguments))
    else:
        try:
            print(score(arguments.folder))
        except IncompleteVerdictError as error:
            sys.exit(f"the verdict is not complete:\n{error}")


if __name__ == "__main__":
    main()
