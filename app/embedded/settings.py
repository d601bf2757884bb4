"""PostgreSQL's settings, fitted to the machine; the reasons are in docs/decisions/0003."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_TEMPLATE = """\
# Written by memoryd at first start for {memory} MB of memory. Yours to change: never rewritten.
# Where the server listens is set when it starts and cannot be changed here.
max_connections = 200
shared_buffers = {shared_buffers}MB
effective_cache_size = {effective_cache_size}MB
work_mem = {work_mem}MB
maintenance_work_mem = {maintenance_work_mem}MB
autovacuum_work_mem = 64MB
dynamic_shared_memory_type = {shared_memory_type}
wal_compression = on
max_wal_size = {max_wal_size}MB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
autovacuum_naptime = 15s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.05
autovacuum_analyze_scale_factor = 0.02
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_filename = 'postgresql-%a.log'
log_rotation_size = 0
log_truncate_on_rotation = on
log_min_messages = warning
log_min_duration_statement = 1s
log_parameter_max_length = 0
"""


def tuned_settings(directory: Path) -> str:
    """Return the contents of `memoryd.conf` for this machine or container, and a disk."""
    disk = shutil.disk_usage(directory).total // 2**20
    memory = _memory_bytes() // 2**20
    return _TEMPLATE.format(
        memory=memory,
        shared_buffers=min(max(memory // 4, 32), 512),
        effective_cache_size=max(memory // 2, 64),
        work_mem=min(max(memory // 256, 4), 16),
        maintenance_work_mem=min(max(memory // 16, 64), 512),
        max_wal_size=min(max(disk // 10, 64), 2048),
        shared_memory_type=_shared_memory_type(),
    )


def _memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or its container's if less."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such control group, or "max"
            sizes.append(int((Path("/sys/fs/cgroup") / limit).read_text()))
    return min(sizes)


def _shared_memory_type() -> str:
    """Return System V's where /dev/shm is small, as in a container."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - only its size is read
    roomy = not shared_memory.exists() or shutil.disk_usage(shared_memory).total >= 2**30
    return "posix" if roomy else "sysv"
