"""The market's tables for the documentation: paths with their natives and rules, and result codes with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

from openresource.market import (
    bonds,
    channels,
    fields,
    kills,
    machines,
    papers,
    placements,
    predicates,
    prices,
    programs,
    reports,
    services,
    ssh_keys,
    stakes,
    tree_json,
    vouchers,
)
from openresource.market.codes import ResultCode
from openresource.market.jobs import comparators, entries, faults, lifecycle, machine, policies, requests
from openresource.market.jobs import records as job_records
from openresource.market.natives import FUNCTIONS, RULES
from openresource.market.natives import channels as channel_natives
from openresource.market.natives import holds as hold_natives
from openresource.market.natives import programs as program_natives
from openresource.market.natives import services as service_natives
from openresource.primitives.errors import Refusal

MODULES: Final[tuple[ModuleType, ...]] = (
    fields,
    programs,
    program_natives,
    services,
    service_natives,
    prices,
    placements,
    predicates,
    papers,
    vouchers,
    channels,
    channel_natives,
    hold_natives,
    bonds,
    stakes,
    kills,
    reports,
    machines,
    ssh_keys,
    comparators,
    entries,
    faults,
    lifecycle,
    machine,
    policies,
    job_records,
    requests,
    tree_json,
)


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One result code: its number, the refusal that carries it, what it says and the way out."""

    number: int
    refusal: str
    says: str
    way_out: str


@dataclass(frozen=True, slots=True)
class PathRow:
    """One path that users write: the native behind it and the rule in front of it."""

    path: str
    native: str
    rule: str


def coded_refusals() -> tuple[type[Refusal], ...]:
    """Every refusal of the market that has a result code, each once."""
    found: dict[type[Refusal], None] = {}
    for module in MODULES:
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, Refusal) and "result_code" in vars(item):
                found[item] = None
    return tuple(found)


def code_rows() -> tuple[CodeRow, ...]:
    """The table of result codes, by number."""
    rows = [
        CodeRow(int(vars(refusal)["result_code"]), refusal.__name__, refusal.template, refusal.way_out)
        for refusal in coded_refusals()
        if isinstance(vars(refusal)["result_code"], ResultCode)
    ]
    return tuple(sorted(rows, key=lambda row: row.number))


def path_rows() -> tuple[PathRow, ...]:
    """The table of paths."""
    return tuple(PathRow(path, native, RULES[path]) for path, native in FUNCTIONS.items())


def codes_markdown() -> str:
    """The table of result codes as a page shows it."""
    lines = ["| code | refusal | says | way out |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.number} | `{row.refusal}` | {row.says} | {row.way_out} |" for row in code_rows()]
    return "\n".join(line.replace("{{", "{").replace("}}", "}") for line in lines)


def paths_markdown() -> str:
    """The table of paths as a page shows it."""
    lines = ["| path | native | who may write (rule) |", "| --- | --- | --- |"]
    lines += [f"| `{row.path}` | `{row.native}` | `{_cell(row.rule)}` |" for row in path_rows()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    # A bar would end the cell, even within code.
    return text.replace("|", "\\|")
