"""Decides which published versions this provider runs: all of them, those of its own wallet, or those on its list.

A version that the operator did not choose is passed over in silence. One that was chosen and cannot run is announced
as refused, with the reason, so that its publisher can read why.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openresource.primitives.cids import is_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import checksum_address, is_address
from openresource.sandbox.driver import LEVELS

Accept = Literal["all", "own", "list"]
ACCEPT_MODES: tuple[Accept, ...] = ("all", "own", "list")
LIST_BYTES_MAX = 1024 * 1024
LIST_ENTRIES_MAX = 10_000


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
    """The policy of the command line, with the list from `accept.toml` where it counts."""
    if accept != "list":
        return Policy(accept, min_level)
    if not list_path.exists():
        raise AcceptListInvalid(path=str(list_path), reason="it does not exist")
    if list_path.stat().st_size > LIST_BYTES_MAX:
        raise AcceptListInvalid(path=str(list_path), reason=f"it is larger than {LIST_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(list_path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AcceptListInvalid(path=str(list_path), reason=f"it is not TOML: {error}") from error
    unknown = set(table) - {"publishers", "services", "programs"}
    if unknown:
        raise AcceptListInvalid(path=str(list_path), reason=f"{min(unknown)} is not known here")
    return Policy(
        accept,
        min_level,
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
