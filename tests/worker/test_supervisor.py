"""A supervised process is started again when it ends, and never outlives its parent."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.supervisor import ChildProcess, Supervisor
from tests.support.server import wait_until

RECORD_PID = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "
WAIT = RECORD_PID + "sys.stdin.read()"
IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
HANG = IGNORE_SIGTERM + RECORD_PID + "import time; time.sleep(60)"


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


def child(pids: Path, code: str, *, stop_seconds: float = 10) -> ChildProcess:
    command = [sys.executable, "-c", code, str(pids)]
    return ChildProcess("child", command, environment={}, stop_seconds=stop_seconds)


def started(pids: Path) -> list[int]:
    return [int(line) for line in pids.read_text().splitlines()] if pids.exists() else []


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_process_that_dies_is_started_again_and_stopped_in_the_end(pids: Path) -> None:
    with capture_logs() as logs, Supervisor(child(pids, WAIT), first_pause=0.01):
        for number in (1, 2):
            wait_until(lambda number=number: len(started(pids)) == number)  # type: ignore[misc]
            os.kill(started(pids)[-1], signal.SIGKILL)
        wait_until(lambda: len(started(pids)) == 3)
    assert not any(map(is_alive, started(pids)))
    assert len(started(pids)) == 3
    assert [(log["event"], log["how"]) for log in logs] == [("task ended", "signal 9")] * 2


def test_the_pauses_between_restarts_double_up_to_a_limit(pids: Path) -> None:
    supervisor = Supervisor(child(pids, RECORD_PID), first_pause=0.01, longest_pause=0.04)
    with capture_logs() as logs, supervisor:
        wait_until(lambda: len(logs) >= 4)
    assert [log["starts_again_in"] for log in logs[:4]] == [0.01, 0.02, 0.04, 0.04]
    assert {log["how"] for log in logs} == {"exit status 0"}


def test_a_process_that_does_not_stop_is_killed(pids: Path) -> None:
    began = time.monotonic()
    with Supervisor(child(pids, HANG, stop_seconds=0.2)):
        wait_until(lambda: bool(started(pids)))
    assert 0.2 < time.monotonic() - began < 10
    assert not is_alive(started(pids)[0])


def test_a_process_that_leaves_signals_to_its_parent_sees_the_end_of_its_input(
    pids: Path,
) -> None:
    with capture_logs() as logs, Supervisor(child(pids, IGNORE_SIGTERM + WAIT)):
        wait_until(lambda: bool(started(pids)))
        os.kill(started(pids)[0], signal.SIGTERM)
    assert not is_alive(started(pids)[0])
    assert logs == []


def test_a_command_that_cannot_be_started_is_tried_again() -> None:
    task = ChildProcess("child", ["/nonexistent"], environment={}, stop_seconds=1)
    with capture_logs() as logs, Supervisor(task, first_pause=0.01):
        wait_until(lambda: len(logs) >= 2)
    assert "/nonexistent" in logs[0]["how"]


@contextmanager
def process_of_its_own(code: str, pids: Path) -> Iterator[int]:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code, str(pids)], os.environ)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_child_sees_the_end_of_a_parent_that_is_killed(pids: Path) -> None:
    """Its standard input ends then, and the worker watches that."""
    parent = f"""if True:
        import sys, threading
        from app.supervisor import ChildProcess
        command = [sys.executable, "-c", {WAIT!r}, sys.argv[1]]
        ChildProcess("child", command, environment={{}}, stop_seconds=1).run(threading.Event())
    """
    with process_of_its_own(parent, pids):
        wait_until(lambda: bool(started(pids)))
        assert is_alive(started(pids)[0])
    wait_until(lambda: not is_alive(started(pids)[0]))
