"""The embedded database's disk: free space, and a reserve for when it is full.

PostgreSQL ends if it cannot extend its log, and cannot recover without some space either. So
memoryd stops writing while some is left, and keeps a reserve file that it deletes at that point.
"""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

RESERVE_NAME = "postgres.reserve"

_LEAST_LEFT = 128 << 20
"""Bytes below which the disk counts as full; less on a small disk. Half of it is the reserve."""

_SMALL_DISK_SHARE = 8

_LOOK_SECONDS = 0.5

_REPORT_SECONDS = 30.0
"""How long a failed write is reported if only PostgreSQL can see the disk."""

_logger = structlog.get_logger("memoryd.disk")


@dataclass(frozen=True, slots=True)
class DiskState:
    """State of a disk; `free_bytes` is None if the database is on another machine."""

    free_bytes: int | None
    is_full: bool


class Disk:
    """Watches the embedded database's directory; without one, relies on PostgreSQL's reports."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._looked_at = self._reported_at = float("-inf")
        self._free_bytes: int | None = None
        self._is_low = self._was_full = False

    @property
    def refuses_writes(self) -> bool:
        """True if writes should be refused before PostgreSQL fails."""
        self._look()
        return self._is_low

    @property
    def state(self) -> DiskState:
        """The current state of the disk."""
        self._look()
        is_reported = time.monotonic() - self._reported_at < _REPORT_SECONDS
        return DiskState(self._free_bytes, self._is_low or is_reported)

    def report_full(self) -> None:
        """Note that PostgreSQL failed to write."""
        self._reported_at = time.monotonic()
        self._log_changes()

    def _look(self) -> None:
        if self._directory is None or time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        left, least = _measure(self._directory)
        self._free_bytes, self._is_low = left, left < least
        self._log_changes()

    def _log_changes(self) -> None:
        is_full = self._is_low or time.monotonic() - self._reported_at < _REPORT_SECONDS
        if is_full and not self._was_full:
            _logger.error(
                "the disk of the database is full; free some space",
                directory=str(self._directory or "on the database's machine"),
                free_bytes=self._free_bytes,
            )
        elif self._was_full and not is_full:
            _logger.warning("the disk of the database has space again")
        self._was_full = is_full


def keep_reserve(directory: Path) -> None:
    """Reserve some space while there is enough, and release it when the disk is full."""
    give_up_reserve(directory)
    left, least = _measure(directory)
    if left >= least and not (directory / RESERVE_NAME).exists():
        with suppress(OSError):  # another process is faster, or the disk has filled up
            _allocate(directory / RESERVE_NAME, least // 2)


def give_up_reserve(directory: Path) -> None:
    """Release the reserve to PostgreSQL if the disk is full."""
    if is_full(directory):
        (directory / RESERVE_NAME).unlink(missing_ok=True)


def is_full(directory: Path) -> bool:
    """Return whether too little space is left for PostgreSQL to write."""
    left, least = _measure(directory)
    return left < least


def _measure(directory: Path) -> tuple[int, int]:
    """Return the free bytes, including the reserve, and the minimum."""
    usage = shutil.disk_usage(directory)
    reserved = 0
    with suppress(FileNotFoundError):
        reserved = (directory / RESERVE_NAME).stat().st_blocks * 512
    return usage.free + reserved, min(_LEAST_LEFT, usage.total // _SMALL_DISK_SHARE)


def _allocate(reserve: Path, size: int) -> None:
    descriptor = os.open(reserve, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        reserve.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
