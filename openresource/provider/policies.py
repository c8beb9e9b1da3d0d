"""Decides which published versions this provider runs: all of them, those of its own wallet, or those on its list.

A version that the operator did not choose is passed over in silence. One that was chosen and cannot run is announced
as refused, with the reason, so that its publisher can read why.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openresource.primitives.cids import is_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address
from openresource.sandbox.driver import LEVELS

Accept = Literal["all", "own", "list"]
LIST_BYTES_MAX = 1024 * 1024
LIST_ENTRIES_MAX = 10_000
WARM_MAX = 256


class AcceptListInvalid(Refusal):
    template = "The list {path} cannot be used: {reason}."
    way_out = 'Write it like this:  publishers = ["0x…"]   services = ["0x…/name"]   programs = ["bafy…"]   (any may be missing)'


class IsolationTooLow(Refusal):
    template = "This machine reaches the isolation level {level}; the operator asks for at least {minimum}."
    way_out = "Run `openresource doctor` to see what the machine lacks, or lower --min-level."


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator said; `publishers`, `services` and `programs` count only in mode `list`."""

    accept: Accept = "own"
    min_level: str = "confined"
    publishers: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()
    # How many instances stay warm without calls, by service or program; it counts in every mode.
    warm: Mapping[str, int] = field(default_factory=dict)


def warm_for(policy: Policy, service: str, program: str, default: int) -> int:
    """How many instances of a program the operator keeps warm."""
    return policy.warm.get(program, policy.warm.get(service, default))


def accepts(policy: Policy, *, own_address: str, publisher: str, name: str, program: str) -> bool:
    """Whether the operator wants a version here."""
    match policy.accept:
        case "all":
            return True
        case "own":
            return publisher == own_address
        case "list":
            return (
                publisher in policy.publishers
                or f"{publisher}/{name}" in policy.services
                or program in policy.programs
            )


def check_level(policy: Policy, level: str) -> None:
    """Refuses a machine whose isolation is weaker than the operator allows."""
    if level_rank(level) < level_rank(policy.min_level):
        raise IsolationTooLow(level=level, minimum=policy.min_level)


def level_rank(level: str) -> int:
    """How strong an isolation level is; an unknown one is weaker than all."""
    return LEVELS.get(level, -1)


def load_policy(accept: Accept, min_level: str, list_path: Path) -> Policy:
    """The policy of the command line, with what `accept.toml` says: its list in mode `list`, what stays warm in all."""
    if not list_path.exists():
        if accept != "list":
            return Policy(accept, min_level)
        raise AcceptListInvalid(path=str(list_path), reason="it does not exist")
    if list_path.stat().st_size > LIST_BYTES_MAX:
        raise AcceptListInvalid(path=str(list_path), reason=f"it is larger than {LIST_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(list_path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AcceptListInvalid(path=str(list_path), reason=f"it is not TOML: {error}") from error
    unknown = set(table) - {"publishers", "services", "programs", "warm"}
    if unknown:
        raise AcceptListInvalid(path=str(list_path), reason=f"{min(unknown)} is not known here")
    warm = _warm(list_path, table)
    if accept != "list":
        return Policy(accept, min_level, warm=warm)
    return Policy(
        accept,
        min_level,
        warm=warm,
        publishers=frozenset(
            _publisher(list_path, entry) for entry in _entries(list_path, table, "publishers")
        ),
        services=frozenset(_service(list_path, entry) for entry in _entries(list_path, table, "services")),
        programs=frozenset(_program(list_path, entry) for entry in _entries(list_path, table, "programs")),
    )


def _entries(path: Path, table: dict[str, Any], name: str) -> list[str]:
    entries = table.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise AcceptListInvalid(path=str(path), reason=f"{name} is not a list of texts")
    if len(entries) > LIST_ENTRIES_MAX:
        raise AcceptListInvalid(path=str(path), reason=f"{name} has more than {LIST_ENTRIES_MAX} entries")
    return entries


def _warm(path: Path, table: dict[str, Any]) -> dict[str, int]:
    """`[warm]`: "0x…/name" = 2, or a program's CID; 0 keeps none."""
    entries = table.get("warm", {})
    if not isinstance(entries, dict) or len(entries) > LIST_ENTRIES_MAX:
        raise AcceptListInvalid(path=str(path), reason="warm is not a table of at most 10000 entries")
    found = {}
    for name, count in entries.items():
        if type(count) is not int or not 0 <= count <= WARM_MAX:
            raise AcceptListInvalid(path=str(path), reason=f"warm of {name[:80]} is not from 0 to {WARM_MAX}")
        found[_service(path, name) if "/" in name else _program(path, name)] = count
    return found


def _publisher(path: Path, entry: str) -> str:
    if not is_address(entry):
        raise AcceptListInvalid(path=str(path), reason=f"{entry[:60]} is not an address")
    return checksum_address(entry)


def _service(path: Path, entry: str) -> str:
    publisher, slash, name = entry.partition("/")
    if not slash or not name or not is_address(publisher):
        raise AcceptListInvalid(
            path=str(path), reason=f"{entry[:80]} is not a publisher's address, / and a name"
        )
    return f"{checksum_address(publisher)}/{name}"


def _program(path: Path, entry: str) -> str:
    if not is_cid(entry):
        raise AcceptListInvalid(path=str(path), reason=f"{entry[:60]} is not a content identifier")
    return entry
