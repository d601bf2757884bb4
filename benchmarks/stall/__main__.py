"""Delays of a second client, and memory of the server, while one client attacks.

python -m benchmarks.stall [--only TEXT …]

Each attack gets a new server with a worker, on one embedded database, and a client of its own.
Delays are those of /healthz on new connections. Memory is the peak of resident bytes over those
before the attack; that of PostgreSQL does not count.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.measure import table
from benchmarks.stall import bodies, clients, schemas
from benchmarks.stall.target import Attack, Target, folder, target
from benchmarks.stall.watch import descendants, resident

ATTACKS = (clients.NOTHING, *schemas.ATTACKS, *bodies.ATTACKS, *clients.ATTACKS)
MOST_DELAY_MS = 100
MOST_BYTES = 200 << 20
SETTLE_SECONDS = 3.0
MOST_SECONDS = 150.0

HEADING = ["attack", "worst ms", "p99 ms", "server MB", "worker MB", "s", ""]


@dataclass(frozen=True, slots=True)
class Reading:
    """Measurements during one attack."""

    delays: list[float]
    server_bytes: int
    worker_bytes: int
    seconds: float
    answered: str

    def row(self, name: str) -> list[str]:
        """Return a row of the table."""
        delays = sorted(self.delays)
        worst, p99 = delays[-1] * 1000, delays[int(len(delays) * 0.99) - 1] * 1000
        server, worker = self.server_bytes / 2**20, self.worker_bytes / 2**20
        bytes_ = max(self.server_bytes, self.worker_bytes)
        misses = worst > MOST_DELAY_MS or bytes_ > MOST_BYTES
        numbers = [f"{value:.0f}" for value in (worst, p99, server, worker, self.seconds)]
        return [name, *numbers, "misses" if misses else ""]


async def watch_attack(attack: Attack, attacked: Target) -> Reading:
    """Run an attack while a second client measures."""
    await asyncio.sleep(SETTLE_SECONDS)
    idle = resident(attacked.pid), sum(map(resident, descendants(attacked.pid)))
    command = [sys.executable, "-m", "benchmarks.stall.watch", attacked.url, str(attacked.pid)]
    watching = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    await asyncio.sleep(1)
    began = time.monotonic()
    try:
        async with asyncio.timeout(MOST_SECONDS):
            answered = await attack.run(attacked)
    except TimeoutError:
        answered = f"not over after {MOST_SECONDS:.0f} s"
    seconds = time.monotonic() - began
    await asyncio.sleep(SETTLE_SECONDS)
    said, _ = await asyncio.to_thread(watching.communicate, b"over")
    read = json.loads(said)
    peaks = read["peaks"]["server"] - idle[0], read["peaks"]["workers"] - idle[1]
    return Reading(read["delays"], *peaks, seconds, answered)


def measure(attack: Attack, path: Path) -> Reading:
    """Start a server and attack it."""
    with (
        target(path, attack) as attacked,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(watch_attack(attack, attacked))


def main() -> None:
    """Run the attacks and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="attacks whose name has one of")
    only = parser.parse_args().only
    rows, answers = [HEADING], []
    with folder() as path:
        for attack in ATTACKS:
            if any(part in attack.name for part in only) or attack is clients.NOTHING:
                reading = measure(attack, path)
                rows.append(reading.row(attack.name))
                answers.append(f"{attack.name}: {reading.answered}")
                print(table([HEADING, rows[-1]]).splitlines()[-1], flush=True)
                print(f"    {reading.answered}", flush=True)
    print(f"\n{table(rows)}\n")
    print("\n".join(answers))


if __name__ == "__main__":
    main()
