"""What this machine has for programs, as far as this process may use it."""

from __future__ import annotations

import os
from pathlib import Path

from openresource.market.hardware import Hardware
from openresource.sandbox.gpus import discover

MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_hardware() -> Hardware:
    """Processors that this process may run on, memory within its group's limit, and graphics processors."""
    gpus = discover()
    vendors = {gpu.vendor for gpu in gpus}
    return Hardware(
        cpu=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        gpu_count=len(gpus),
        # Of several vendors none can be told, as a record has one.
        gpu_vendor=vendors.pop() if len(vendors) == 1 else "",
        gpu_memory_bytes=min((gpu.memory_bytes for gpu in gpus), default=0),
    )


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
