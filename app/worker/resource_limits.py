"""Kernel limits on this process's memory and processor time."""

import resource
from contextlib import suppress
from pathlib import Path


def limit_memory(additional_bytes: int) -> None:
    """Limit this process to its present memory plus `additional_bytes`.

    An allocation beyond that raises MemoryError. Has no effect on systems other than Linux.
    """
    with suppress(FileNotFoundError):  # no /proc
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _lower(resource.RLIMIT_DATA, pages * resource.getpagesize() + additional_bytes)


def limit_processor_time(additional_seconds: float) -> None:
    """Have the kernel end this process after `additional_seconds` more of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + additional_seconds) + 1)


def _lower(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(kind, (soft, hard))
