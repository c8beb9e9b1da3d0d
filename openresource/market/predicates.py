"""Decides whether a provider is fit to run a service: the demands of a publisher against what a placement brings.

Isolation, hardware, runtime class and region are the provider's own word; bond and record are facts of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from openresource.market.codes import ResultCode
from openresource.market.fields import Fields
from openresource.market.hardware import (
    CPU_MAX,
    GPU_COUNT_MAX,
    MEMORY_BYTES_MAX,
    Hardware,
    bytes_text,
    is_region,
    read_word,
)
from openresource.market.placements import ISOLATION_LEVELS, RUNTIME_CLASS_CHARACTERS_MAX, Placement
from openresource.market.records import NO_RECORD, ProviderRecord
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal

CHOICES_MAX: Final = 32


class IsolationTooLow(Refusal):
    result_code = ResultCode.ISOLATION_TOO_LOW
    template = (
        "The publisher of {name} asks for isolation {wanted} at least; this placement offers {offered}."
    )
    way_out = "Run it on a machine that reaches {wanted}; `openresource doctor` tells what a machine gives."


class HardwareTooSmall(Refusal):
    result_code = ResultCode.HARDWARE_TOO_SMALL
    template = "The publisher of {name} asks for {part}: {wanted} at least; this placement offers {offered}."
    way_out = "Run it on a larger machine; what a machine offers is in its placement's member hardware."


class GpuVendorNotAccepted(Refusal):
    result_code = ResultCode.GPU_VENDOR_NOT_ACCEPTED
    template = "The publisher of {name} asks for a GPU by {wanted}; this placement offers {offered}."
    way_out = "Run it on a machine with such a GPU."


class RuntimeClassNotAccepted(Refusal):
    result_code = ResultCode.RUNTIME_CLASS_NOT_ACCEPTED
    template = "The publisher of {name} asks for the runtime class {wanted}; this placement offers {offered}."
    way_out = "Prepare one of these runtimes on this machine, or leave the service to others."


class RegionNotAccepted(Refusal):
    result_code = ResultCode.REGION_NOT_ACCEPTED
    template = "The publisher of {name} asks for the region {wanted}; this placement offers {offered}."
    way_out = "Run it on a machine there, and say so: openresource provide --region."


class BondTooSmall(Refusal):
    result_code = ResultCode.BOND_TOO_SMALL
    template = "The publisher of {name} asks for a bond of {wanted} AIN; {provider} has {offered} AIN bonded."
    way_out = "Bond more: openresource bond add AMOUNT. What is being withdrawn does not count."


class RecordTooShort(Refusal):
    result_code = ResultCode.RECORD_TOO_SHORT
    template = "The publisher of {name} asks for a record of {wanted} {part}; {provider} has {offered}."
    way_out = "Serve other services first: each settled claim counts."


@dataclass(frozen=True, slots=True)
class RunIf:
    """What a publisher asks of those who run a service; 0 and empty ask for nothing."""

    cpu: int = 0
    memory_bytes: int = 0
    gpu_count: int = 0
    gpu_vendor: str = ""
    gpu_memory_bytes: int = 0
    isolation: str = ""
    runtime_classes: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    bond_uain: int = 0
    claimed_uain: int = 0
    claims: int = 0


@dataclass(frozen=True, slots=True)
class Offered:
    """What a provider brings."""

    provider: str
    isolation: str
    hardware: Hardware
    runtime: str = ""
    runtime_class: str = ""
    region: str = ""
    bond_uain: int = 0
    record: ProviderRecord = NO_RECORD


NO_DEMANDS: Final = RunIf()


def offered_by(placement: Placement, bond_uain: int, record: ProviderRecord) -> Offered:
    """What a placement and the chain say of its provider."""
    return Offered(
        provider=placement.provider,
        isolation=placement.isolation,
        hardware=placement.hardware,
        runtime=placement.runtime,
        runtime_class=placement.runtime_class,
        region=placement.region,
        bond_uain=bond_uain,
        record=record,
    )


def check_run_if(run_if: RunIf, name: str, offered: Offered, *, is_runtime_known: bool = True) -> None:
    """Refuses a provider that is not fit, with what was asked and what was offered."""
    _check_isolation(run_if.isolation, name, offered.isolation)
    _check_hardware(run_if, name, offered.hardware)
    # Before a release was fetched nobody knows which runtime it will get.
    if is_runtime_known and run_if.runtime_classes:
        mine = {offered.runtime_class, offered.runtime}
        if not mine & set(run_if.runtime_classes):
            shown = offered.runtime_class or offered.runtime or "none"
            raise RuntimeClassNotAccepted(
                name=name, wanted=" or ".join(run_if.runtime_classes), offered=shown
            )
    if run_if.regions and offered.region not in run_if.regions:
        raise RegionNotAccepted(
            name=name, wanted=" or ".join(run_if.regions), offered=offered.region or "none"
        )
    check_bond(run_if, name, offered.provider, offered.bond_uain)
    _check_record(run_if, name, offered)


def check_bond(run_if: RunIf, name: str, provider: str, bond_uain: int) -> None:
    """Refuses a provider whose bond is smaller than asked; what is being withdrawn does not count."""
    if bond_uain < run_if.bond_uain:
        raise BondTooSmall(
            name=name,
            provider=provider,
            wanted=text_from_uain(run_if.bond_uain),
            offered=text_from_uain(bond_uain),
        )


def check_isolation(wanted: str, name: str, offered: str) -> None:
    """Refuses a wall that is thinner than asked."""
    _check_isolation(wanted, name, offered)


def read_run_if(record: Any) -> RunIf:
    """The demands from their record; no record demands nothing."""
    if record is None:
        return NO_DEMANDS
    fields = Fields(record, "condition run_if")
    run_if = RunIf(
        cpu=fields.optional_integer("cpu", 0, 0, CPU_MAX),
        memory_bytes=fields.optional_integer("memory_bytes", 0, 0, MEMORY_BYTES_MAX),
        gpu_count=fields.optional_integer("gpu_count", 0, 0, GPU_COUNT_MAX),
        gpu_vendor=read_word(fields, "gpu_vendor"),
        gpu_memory_bytes=fields.optional_integer("gpu_memory_bytes", 0, 0, MEMORY_BYTES_MAX),
        isolation=fields.choice("isolation", tuple(ISOLATION_LEVELS)) if fields.has("isolation") else "",
        runtime_classes=_read_choices(fields, "runtime_class"),
        regions=_read_choices(fields, "regions"),
        bond_uain=fields.amount("bond_uain") if fields.has("bond_uain") else 0,
        claimed_uain=fields.optional_integer("claimed_uain", 0),
        claims=fields.optional_integer("claims", 0),
    )
    fields.take("isolation")
    fields.take("bond_uain")
    for region in run_if.regions:
        if not is_region(region):
            raise fields.wrong("regions", "must name regions in lower-case letters, digits and hyphens")
    fields.finish()
    return run_if


def run_if_record(run_if: RunIf) -> dict[str, Any]:
    """The demands as they stand on the chain: the member `run_if` of a service's permissions."""
    members: dict[str, Any] = {
        "cpu": run_if.cpu,
        "memory_bytes": run_if.memory_bytes,
        "gpu_count": run_if.gpu_count,
        "gpu_vendor": run_if.gpu_vendor,
        "gpu_memory_bytes": run_if.gpu_memory_bytes,
        "isolation": run_if.isolation,
        "runtime_class": _choices_record(run_if.runtime_classes),
        "regions": _choices_record(run_if.regions),
        "bond_uain": run_if.bond_uain,
        "claimed_uain": run_if.claimed_uain,
        "claims": run_if.claims,
    }
    return {name: value for name, value in members.items() if value}


def run_if_words(run_if: RunIf) -> tuple[str, ...]:
    """The demands as a person reads them."""
    gpu = " ".join(word for word in (str(run_if.gpu_count or ""), run_if.gpu_vendor, "GPU") if word)
    words = (
        f"{run_if.cpu} CPUs" if run_if.cpu else "",
        f"{bytes_text(run_if.memory_bytes)} of memory" if run_if.memory_bytes else "",
        gpu if run_if.gpu_count or run_if.gpu_vendor else "",
        f"{bytes_text(run_if.gpu_memory_bytes)} on a GPU" if run_if.gpu_memory_bytes else "",
        f"isolation {run_if.isolation}" if run_if.isolation else "",
        f"runtime {' or '.join(run_if.runtime_classes)}" if run_if.runtime_classes else "",
        f"in {' or '.join(run_if.regions)}" if run_if.regions else "",
        f"a bond of {text_from_uain(run_if.bond_uain)} AIN" if run_if.bond_uain else "",
        f"{text_from_uain(run_if.claimed_uain)} AIN earned before" if run_if.claimed_uain else "",
        f"{run_if.claims} claims before" if run_if.claims else "",
    )
    return tuple(word for word in words if word)


def _check_isolation(wanted: str, name: str, offered: str) -> None:
    if wanted and ISOLATION_LEVELS.get(offered, 0) < ISOLATION_LEVELS[wanted]:
        raise IsolationTooLow(name=name, wanted=wanted, offered=offered or "none")


def _check_hardware(run_if: RunIf, name: str, hardware: Hardware) -> None:
    parts = (
        ("CPUs", run_if.cpu, hardware.cpu),
        ("bytes of memory", run_if.memory_bytes, hardware.memory_bytes),
        ("GPUs", run_if.gpu_count, hardware.gpu_count),
        ("bytes of memory of each GPU", run_if.gpu_memory_bytes, hardware.gpu_memory_bytes),
    )
    for part, wanted, offered in parts:
        if offered < wanted:
            raise HardwareTooSmall(name=name, part=part, wanted=wanted, offered=offered)
    if run_if.gpu_vendor and run_if.gpu_vendor != hardware.gpu_vendor:
        raise GpuVendorNotAccepted(name=name, wanted=run_if.gpu_vendor, offered=hardware.gpu_vendor or "none")


def _check_record(run_if: RunIf, name: str, offered: Offered) -> None:
    for part, wanted, reached in (
        ("µAIN claimed", run_if.claimed_uain, offered.record.claimed_uain),
        ("claims", run_if.claims, offered.record.claims),
    ):
        if reached < wanted:
            raise RecordTooShort(
                name=name, part=part, wanted=wanted, provider=offered.provider, offered=reached
            )


def _read_choices(fields: Fields, member: str) -> tuple[str, ...]:
    """Texts by position, as the tree keeps a list; in the order of their positions."""
    value = fields.take(member)
    if value is None:
        return ()
    if not isinstance(value, dict) or not 0 < len(value) <= CHOICES_MAX:
        raise fields.wrong(member, f"must be 1 to {CHOICES_MAX} texts by position")
    texts = Fields(value, f"condition {member}")
    found = tuple(texts.text(str(number), RUNTIME_CLASS_CHARACTERS_MAX) for number in range(len(value)))
    texts.finish()
    return found


def _choices_record(choices: tuple[str, ...]) -> dict[str, str]:
    return {str(number): choice for number, choice in enumerate(choices)}
