"""What a machine says it has: processors, memory, accelerators, and where it stands. Nobody but its owner vouches for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from openresource.market.fields import Fields

CPU_MAX: Final = 100_000
MEMORY_BYTES_MAX: Final = 1 << 50
GPU_COUNT_MAX: Final = 1_024
REGION_CHARACTERS_MAX: Final = 40

_WORD = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine's parts; 0 and empty mean that nothing is said."""

    cpu: int = 0
    memory_bytes: int = 0
    gpu_count: int = 0
    gpu_vendor: str = ""
    # Of one accelerator, not of all together.
    gpu_memory_bytes: int = 0


NOTHING_SAID: Final = Hardware()


def is_region(text: str) -> bool:
    """Whether a text may name a region or a vendor: lower-case letters, digits and hyphens, at most 40."""
    return _WORD.fullmatch(text) is not None


def read_word(fields: Fields, member: str) -> str:
    """An optional lower-case word of letters, digits and hyphens."""
    text = fields.optional_text(member, REGION_CHARACTERS_MAX)
    if text and not is_region(text):
        raise fields.wrong(member, "must be lower-case letters, digits and hyphens")
    return text


def read_hardware(record: Any) -> Hardware:
    """Hardware from its record; no record says nothing."""
    if record is None:
        return NOTHING_SAID
    fields = Fields(record, "hardware")
    hardware = Hardware(
        cpu=fields.optional_integer("cpu", 0, 0, CPU_MAX),
        memory_bytes=fields.optional_integer("memory_bytes", 0, 0, MEMORY_BYTES_MAX),
        gpu_count=fields.optional_integer("gpu_count", 0, 0, GPU_COUNT_MAX),
        gpu_vendor=read_word(fields, "gpu_vendor"),
        gpu_memory_bytes=fields.optional_integer("gpu_memory_bytes", 0, 0, MEMORY_BYTES_MAX),
    )
    fields.finish()
    return hardware


def hardware_record(hardware: Hardware) -> dict[str, Any]:
    """The members that say something."""
    members: dict[str, Any] = {
        "cpu": hardware.cpu,
        "memory_bytes": hardware.memory_bytes,
        "gpu_count": hardware.gpu_count,
        "gpu_vendor": hardware.gpu_vendor,
        "gpu_memory_bytes": hardware.gpu_memory_bytes,
    }
    return {name: value for name, value in members.items() if value}


def hardware_text(hardware: Hardware) -> str:
    """The parts in words, such as `8 CPUs, 32 GiB, 1 nvidia GPU of 24 GiB`; empty if nothing is said."""
    parts = []
    if hardware.cpu:
        parts.append(f"{hardware.cpu} CPU{'s'[: hardware.cpu != 1]}")
    if hardware.memory_bytes:
        parts.append(bytes_text(hardware.memory_bytes))
    if hardware.gpu_count:
        vendor = f"{hardware.gpu_vendor} " if hardware.gpu_vendor else ""
        of = f" of {bytes_text(hardware.gpu_memory_bytes)}" if hardware.gpu_memory_bytes else ""
        parts.append(f"{hardware.gpu_count} {vendor}GPU{'s'[: hardware.gpu_count != 1]}{of}")
    return ", ".join(parts)


def bytes_text(amount: int) -> str:
    """An amount of memory in the largest unit that fits, to a tenth."""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= size:
            return f"{amount / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{amount} bytes"
