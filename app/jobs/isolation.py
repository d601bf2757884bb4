"""Isolation of jobs whose process died: each runs alone, in a child process."""

import asyncio
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from app.config import Settings
from app.jobs.kind import RunJob
from app.jobs.record import ClaimedJob
from app.resources import Resources

MAX_CHILDREN = 2
"""Isolated jobs that one worker runs at a time; each needs the memory of a process."""

COULD_NOT_RUN = 75
"""Exit status (EX_TEMPFAIL) of a child that could not run its job; the job is not blamed."""

START_SECONDS = 60.0
"""Time that a child may take in addition to its job's timeout."""

MODULE = "app.worker.isolated_job"

BuildHandlers: TypeAlias = Callable[[Resources], Mapping[str, RunJob]]
"""Builds the functions that run jobs, by kind, from the resources of a process."""


@dataclass(frozen=True, slots=True)
class ChildTask:
    """A child's task; `build_handlers` must be a module-level function, to be pickled."""

    settings: Settings
    job_id: str
    attempt: int
    build_handlers: BuildHandlers


class Isolation:
    """Starts one worker's child processes."""

    def __init__(self, settings: Settings, build_handlers: BuildHandlers) -> None:
        self._settings = settings
        self._build_handlers = build_handlers

    async def run(self, job: ClaimedJob) -> int:
        """Run an attempt in a child process; return its exit status, negative for a signal.

        The child is killed when this is canceled, and when it takes too long.
        """
        task = ChildTask(self._settings, job.id, job.attempt, self._build_handlers)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", MODULE, stdin=asyncio.subprocess.PIPE, stdout=2
        )
        assert child.stdin is not None  # noqa: S101  # it is a pipe
        try:
            # The pipe stays open; its end signals the child that this process is gone.
            child.stdin.write(pickle.dumps(task))
            async with asyncio.timeout(self._settings.job_timeout_seconds + START_SECONDS):
                return await child.wait()
        except TimeoutError:
            return await _kill(child)
        finally:
            if child.returncode is None:
                await _kill(child)


async def _kill(child: asyncio.subprocess.Process) -> int:
    child.kill()
    return await child.wait()
