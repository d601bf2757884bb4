"""The disk under the embedded database: how much is left, and a reserve for the worst moment.

PostgreSQL ends if it cannot extend its log, and cannot recover without some space either. So
memoryd stops writing while there is still some left, and keeps a file that it deletes then.
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
"""How long a failed write is reported when only PostgreSQL can see the disk."""

_logger = structlog.get_logger("memoryd.disk")


@dataclass(frozen=True, slots=True)
class DiskState:
    """What is left; None if the database is elsewhere."""

    free_bytes: int | None
    is_full: bool


class Disk:
    """Watches the directory of the embedded database; without one, only what PostgreSQL reports."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._looked_at = self._reported_at = float("-inf")
        self._free_bytes: int | None = None
        self._is_low = self._was_full = False

    @property
    def refuses_writes(self) -> bool:
        """Whether writing has to stop before PostgreSQL fails at it."""
        self._look()
        return self._is_low

    @property
    def state(self) -> DiskState:
        """What is known of the disk at this moment."""
        self._look()
        is_reported = time.monotonic() - self._reported_at < _REPORT_SECONDS
        return DiskState(self._free_bytes, self._is_low or is_reported)

    def report_full(self) -> None:
        """Note that PostgreSQL could not write."""
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
    """Hold some space while there is enough, and give it up when the disk is full."""
    give_up_reserve(directory)
    left, least = _measure(directory)
    if left >= least and not (directory / RESERVE_NAME).exists():
        with suppress(OSError):  # another process is faster, or the disk has filled up
            _allocate(directory / RESERVE_NAME, least // 2)


def give_up_reserve(directory: Path) -> None:
    """Let PostgreSQL have the reserve if the disk is full."""
    if is_full(directory):
        (directory / RESERVE_NAME).unlink(missing_ok=True)


def is_full(directory: Path) -> bool:
    """Whether too little is left for PostgreSQL to write."""
    left, least = _measure(directory)
    return left < least


def _measure(directory: Path) -> tuple[int, int]:
    """Return the bytes that are left, counting the reserve, and how many should be."""
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
