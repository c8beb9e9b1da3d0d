"""`permit`: who may call a service, who may run it, and what a machine must bring to do so."""

import re
from dataclasses import replace
from typing import Any

import click

from openresource.cli.output import (
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    show,
    usage_error,
)
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.market.placements import ISOLATION_LEVELS
from openresource.market.services import EVERYONE, Permissions
from openresource.primitives.amounts import uain_from_text
from openresource.primitives.keys import checksum_address, is_address

_BYTES = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# How each demand is written on the command line, and the member that it becomes.
DEMANDS = {
    "cpu": "cpu",
    "memory": "memory_bytes",
    "gpu": "gpu_count",
    "gpu-vendor": "gpu_vendor",
    "gpu-memory": "gpu_memory_bytes",
    "isolation": "isolation",
    "runtime": "runtime_classes",
    "region": "regions",
    "bond": "bond_uain",
    "claimed": "claimed_uain",
    "claims": "claims",
}


@click.command(
    epilog="""\b
Example:  openresource permit sentiment
          openresource permit sentiment --run-if memory=8G --run-if region=kr-seoul,eu-west
          openresource permit sentiment --run-if bond=5 --run-if claims=10 --run 0xAb…12 --dry-run
          openresource permit sentiment --run-if none --run everyone
\b
--run-if  cpu=4  memory=8G  gpu=1  gpu-vendor=nvidia  gpu-memory=24G  isolation=bubblewrap
          runtime=python-3.11,python-3.12  region=kr-seoul,eu-west  bond=5 (AIN)  claimed=1 (AIN)  claims=10
\b
Exit codes: 0 done · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("service")
@click.option(
    "--call", "callers", multiple=True, help="An address that may call it, or everyone. Repeatable."
)
@click.option("--run", "runners", multiple=True, help="An address that may run it, or everyone. Repeatable.")
@click.option(
    "--run-if",
    "demands",
    multiple=True,
    metavar="NAME=VALUE",
    help="What a machine must bring; replaces the demands before. `none` asks for nothing. Repeatable.",
)
@click.option(
    "--min-isolation",
    type=click.Choice([*ISOLATION_LEVELS, "none"]),
    help="The thinnest wall behind which it may run.",
)
@home_option
@network_node_option
@dry_run_option
@json_option
def permit(
    service: str,
    callers: tuple[str, ...],
    runners: tuple[str, ...],
    demands: tuple[str, ...],
    min_isolation: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show or set who may call and run SERVICE of this home's wallet; what is not named stays as it is."""
    place = Home(home)
    name = service.rpartition("/")[2].partition("@")[0]
    address = place.address()
    is_change = bool(callers or runners or demands or min_isolation)
    changes = _changes(callers, runners, demands, min_isolation)

    async def permitting() -> dict[str, Any]:
        from openresource.client.services import NoSuchService
        from openresource.market.services import permissions_record, read_permissions

        async with chain_of(place, node_url) as chain:
            base = f"/services/{address}/{name}"
            if await chain.read(f"{base}/latest") is None:
                raise NoSuchService(service=f"{address}/{name}")
            before = read_permissions(await chain.read(f"{base}/permissions"))
            after = replace(before, **changes)
            record = permissions_record(after)
            outcome: dict[str, Any] = {
                "service": f"{address}/{name}",
                "permissions": record,
                "changed": after != before,
                "dry_run": dry_run,
                "words": _words(after),
            }
            if is_change and after != before and not dry_run:
                outcome["tx_hash"] = await chain.write(f"{base}/permissions", record or None, key_of(place))
            return outcome

    outcome = run(permitting())
    show(outcome, as_json=as_json, text=lambda: _text(outcome))


def demand_of(text: str) -> tuple[str, Any]:
    """One demand of the command line, such as memory=8G, as the member of a condition and its value."""
    name, equals, value = text.partition("=")
    member = DEMANDS.get(name.strip())
    value = value.strip()
    if member is None or not equals or not value:
        usage_error(f"{text} is no demand; write NAME=VALUE with one of {', '.join(DEMANDS)}.")
    if member in ("memory_bytes", "gpu_memory_bytes"):
        return member, _bytes(value)
    if member in ("runtime_classes", "regions"):
        return member, tuple(part.strip() for part in value.split(",") if part.strip())
    if member in ("bond_uain", "claimed_uain"):
        return member, uain_from_text(value)
    if member in ("gpu_vendor", "isolation"):
        return member, value
    if not value.isdecimal():
        usage_error(f"{text}: {name} takes a whole number.")
    return member, int(value)


def _changes(
    callers: tuple[str, ...], runners: tuple[str, ...], demands: tuple[str, ...], min_isolation: str | None
) -> dict[str, Any]:
    from openresource.market.predicates import NO_DEMANDS, read_run_if, run_if_record

    changes: dict[str, Any] = {}
    if callers:
        changes["call"] = _permitted(callers)
    if runners:
        changes["run"] = _permitted(runners)
    if min_isolation is not None:
        changes["min_isolation"] = "" if min_isolation == "none" else min_isolation
    if demands == ("none",):
        changes["run_if"] = NO_DEMANDS
    elif demands:
        wanted = replace(NO_DEMANDS, **dict(demand_of(text) for text in demands))
        # What the chain would refuse is refused here.
        changes["run_if"] = read_run_if(run_if_record(wanted) or None)
    return changes


def _permitted(names: tuple[str, ...]) -> dict[str, bool] | None:
    if EVERYONE in names:
        return None
    wrong = [name for name in names if not is_address(name)]
    if wrong:
        usage_error(f"{wrong[0]} is neither an address nor {EVERYONE}.")
    return {checksum_address(name): True for name in names}


def _bytes(text: str) -> int:
    match = _BYTES.fullmatch(text)
    if match is None:
        usage_error(f"{text} is no amount of memory; write it like 512M or 8G.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _words(permissions: Permissions) -> dict[str, Any]:
    from openresource.market.predicates import run_if_words

    def who(permitted: Any) -> str:
        if permitted is None or permitted.get(EVERYONE):
            return "everybody"
        return (
            ", ".join(address for address, is_permitted in permitted.items() if is_permitted) or "nobody else"
        )

    return {
        "call": who(permissions.call),
        "run": who(permissions.run),
        "min_isolation": permissions.min_isolation,
        "run_if": list(run_if_words(permissions.run_if)),
    }


def _text(outcome: dict[str, Any]) -> str:
    words = outcome["words"]
    lines = [outcome["service"] + (" would be" if outcome["dry_run"] and outcome["changed"] else "")]
    lines.append(f"  may be called by  {words['call']}")
    lines.append(f"  may be run by     {words['run']}")
    if words["min_isolation"]:
        lines.append(f"  behind            {words['min_isolation']} or more")
    if words["run_if"]:
        lines.append(f"  on machines with  {', '.join(words['run_if'])}")
    return "\n".join(lines)
