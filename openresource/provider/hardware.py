"""What this machine has for programs, as far as this process may use it."""

from __future__ import annotations

import os
from pathlib import Path

from openresource.market.hardware import Hardware

MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_hardware() -> Hardware:
    """Processors that this process may run on, and memory within its group's limit."""
    return Hardware(cpu=len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())


def _memory_bytes() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in MEMORY_FILES:
        try:
            limit = Path(file).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():
            total = min(total, int(limit))
    return total
