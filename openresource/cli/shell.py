"""`shell`: a shell, or one command, in a sandbox of a machine that the wallet owns, rents or is a guest of."""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import (
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    note,
    say,
    show,
    usage_error,
)
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import InvalidInput, Refusal
from openresource.primitives.keys import checksum_address, is_address

SSH_FOLDER = "ssh"
KEY_FILE = "id_ed25519"
KNOWN_HOSTS_FILE = "known_hosts"
MINUTES_DEFAULT = 60


class ShellExtraMissing(Refusal):
    template = "Shells need the package asyncssh, which is not installed."
    way_out = "pip install 'openresource[shell]'"


class OwnMachine(Refusal):
    template = "{machine} is yours: rent would only cost you the network's fee."
    way_out = "Enter without it: openresource shell {node}"


class NoRightYet(Refusal):
    template = "{address} may not enter {machine}."
    way_out = "{how}"


@click.command(
    epilog="""\b
Example:  openresource shell
          openresource shell attic
          openresource shell 0xAb…12 --rent 30 -- python3 -c 'print(6*7)'
          tar c data | openresource shell attic -- tar x
          openresource shell attic --admit 0xCd…34 --minutes 120
\b
Without NODE it lists the machines that open. COMMAND goes to the machine's shell as one line, as with ssh.
The session runs in a sandbox without a network; it is written down there, and you are told so.
\b
Exit codes: that of the command · 128 + n if signal n ended it · 254 the session was refused or ended by the machine
            1 refused · 2 wrong usage · 3 machine or node away · 5 over a spending limit"""
)
@click.argument("node", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--rent", type=click.IntRange(1), metavar="MINUTES", help="Pay for so many minutes first.")
@click.option("--print", "prints", is_flag=True, help="Print the command of a stock ssh client instead.")
@click.option("--admit", metavar="ADDRESS", help="Owner: let somebody in, for --minutes.")
@click.option("--dismiss", metavar="ADDRESS", help="Owner: show somebody out.")
@click.option(
    "--minutes",
    type=click.IntRange(1),
    default=MINUTES_DEFAULT,
    show_default=True,
    help="How long, with --admit.",
)
@click.option("-t", "--tty/--no-tty", default=None, help="A terminal there, or none. Default: as here.")
@click.option(
    "--audit", is_flag=True, help="Check the audit trail of this home's own machine; print its digest."
)
@home_option
@network_node_option
@dry_run_option
@json_option
def shell(
    node: str | None,
    command: tuple[str, ...],
    rent: int | None,
    prints: bool,
    admit: str | None,
    dismiss: str | None,
    minutes: int,
    tty: bool | None,
    audit: bool,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Open a shell, or run COMMAND, on the machine NODE: its address, its name, or host:port."""
    place = Home(home)
    if audit:
        _audit(place, as_json)
        return
    if node is None:
        _list(place, node_url, as_json)
        return
    if admit is not None or dismiss is not None:
        guest = _address(admit or dismiss or "")
        _admit(place, node_url, node, guest, minutes if admit else None, dry_run, as_json)
        return
    if rent is not None:
        _rent(place, node_url, node, rent, dry_run, as_json)
        if dry_run or (as_json and not command):
            return
    if prints:
        _print(place, node_url, node, as_json)
        return
    wants_terminal = tty if tty is not None else not command and sys.stdin.isatty() and sys.stdout.isatty()
    if wants_terminal and not sys.stdin.isatty():
        usage_error("There is no terminal here; leave --tty out.")
    text = " ".join(command) if command else None
    sys.exit(run(_opened(place, node_url, node, text, wants_terminal)))


async def _opened(
    place: Home, node_url: str | None, node: str, command: str | None, wants_terminal: bool
) -> int:
    client = ssh_part("client")
    async with chain_of(place, node_url) as chain:
        seen, key = await _ready(place, chain, node)
    return int(
        await client.open_shell(seen.offer, place.address(), key, command, wants_terminal=wants_terminal)
    )


async def _ready(place: Home, chain: Any, node: str) -> tuple[Any, Any]:
    """The machine, entered by right, and the key that the wallet vouches for."""
    from openresource.client.shells import find_machine, vouch_for_key

    keys = ssh_part("keys")
    seen = await find_machine(chain, node, place.address(), _now_ms())
    if seen.right is None:
        raise NoRightYet(
            address=place.address(), machine=seen.offer.machine, how=_how_to_enter(node, seen.offer)
        )
    key = keys.load_or_make_key(place.ensure() / SSH_FOLDER / KEY_FILE)
    await vouch_for_key(chain, key_of(place), keys.public_key_of(key))
    return seen, key


def _how_to_enter(node: str, offer: Any) -> str:
    if offer.price_uain is None:
        return f"It is not for rent; ask its owner {offer.owner} to admit you."
    return (
        f"It costs {text_from_uain(offer.price_uain)} AIN a minute: openresource shell {node} --rent MINUTES "
        f"(at most {offer.minutes_max})."
    )


def _list(place: Home, node_url: str | None, as_json: bool) -> None:
    address = place.address() if place.has_wallet() else "0x" + "0" * 40

    async def listing() -> list[dict[str, Any]]:
        from openresource.client.shells import machines

        async with chain_of(place, node_url) as chain:
            return [_record(seen) for seen in await machines(chain, address, _now_ms())]

    found = run(listing())
    if as_json:
        show(found, as_json=True, text="")
        return
    if not found:
        say("No machine opens on this network.  Open this one:  openresource provide --shell")
    for record in found:
        say(_text(record))


def _record(seen: Any) -> dict[str, Any]:
    from openresource.market.hardware import hardware_record, hardware_text

    offer, right = seen.offer, seen.right
    return {
        "machine": offer.machine,
        "name": offer.name,
        "owner": offer.owner,
        "endpoint": offer.endpoint,
        "host_key": offer.host_key,
        "isolation": offer.isolation,
        "price_uain": offer.price_uain,
        "minutes_max": offer.minutes_max,
        "hardware": hardware_record(offer.hardware),
        "hardware_text": hardware_text(offer.hardware),
        "region": offer.region,
        "right": None if right is None else right.kind,
        "until_ms": None if right is None else right.until_ms or None,
    }


def _text(record: dict[str, Any]) -> str:
    from openresource.cli.times import until_text

    price = (
        "not for rent"
        if record["price_uain"] is None
        else f"{text_from_uain(record['price_uain'])} AIN a minute, up to {record['minutes_max']} minutes"
    )
    head = click.style(record["name"] or record["machine"], bold=True)
    more = [
        record["isolation"],
        record["hardware_text"],
        f"in {record['region']}" if record["region"] else "",
    ]
    lines = [f"{head}  {price}", f"    {record['machine']} at {record['endpoint']}"]
    lines.append(f"    {', '.join(part for part in more if part)}")
    if record["right"]:
        until = f" until {until_text(record['until_ms'])}" if record["until_ms"] else ""
        lines.append(f"    you are its {record['right']}{until}")
    return "\n".join(lines)


def _rent(place: Home, node_url: str | None, node: str, minutes: int, dry_run: bool, as_json: bool) -> None:
    async def renting() -> dict[str, Any]:
        from openresource.client.channels import OverSpendingLimit
        from openresource.client.shells import find_machine, rent_machine
        from openresource.market.machines import MachineNotForRent

        async with chain_of(place, node_url) as chain:
            offer = (await find_machine(chain, node, place.address(), _now_ms())).offer
            if offer.owner == place.address():
                raise OwnMachine(machine=offer.machine, node=node)
            if offer.price_uain is None:
                raise MachineNotForRent(machine=offer.machine, owner=offer.owner)
            cost_uain = offer.price_uain * minutes
            limit_uain = place.limits().per_day_uain
            if cost_uain > limit_uain:
                amount, limit = text_from_uain(cost_uain), text_from_uain(limit_uain)
                raise OverSpendingLimit(
                    f"A rent of {amount} AIN is more than the limit of {limit} AIN for a day.",
                    amount=amount,
                    limit=limit,
                    remedy="Rent fewer minutes, or raise the limit: openresource money limit --per-day AMOUNT",
                )
            plan: dict[str, Any] = {
                "machine": offer.machine,
                "minutes": minutes,
                "cost_uain": cost_uain,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            tx_hash = await rent_machine(chain, key_of(place), offer, minutes)
            seen = await find_machine(chain, node, place.address(), _now_ms())
            until_ms = seen.right.until_ms if seen.right is not None else 0
            return {**plan, "tx_hash": tx_hash, "until_ms": until_ms}

    record = run(renting())
    if as_json:
        show(record, as_json=True, text="")
        return
    rented = "Would rent" if dry_run else "Rented"
    note(f"{rented} {record['machine']} for {minutes} minutes: {text_from_uain(record['cost_uain'])} AIN.")


def _admit(
    place: Home,
    node_url: str | None,
    node: str,
    guest: str,
    minutes: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    until_ms = None if minutes is None else _now_ms() + minutes * 60_000

    async def admitting() -> dict[str, Any]:
        from openresource.client.shells import admit_guest, find_machine

        async with chain_of(place, node_url) as chain:
            offer = (await find_machine(chain, node, place.address(), _now_ms())).offer
            plan: dict[str, Any] = {
                "machine": offer.machine,
                "guest": guest,
                "until_ms": until_ms,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            return {
                **plan,
                "tx_hash": await admit_guest(chain, key_of(place), offer.machine, guest, until_ms),
            }

    record = run(admitting())
    verb = "may enter" if minutes is not None else "is shown out of"
    would = "would be: " if dry_run else ""
    span = f" for {minutes} minutes" if minutes is not None else ""
    show(record, as_json=as_json, text=f"{would}{guest} {verb} {record['machine']}{span}.")


def _print(place: Home, node_url: str | None, node: str, as_json: bool) -> None:
    async def preparing() -> Any:
        async with chain_of(place, node_url) as chain:
            return (await _ready(place, chain, node))[0].offer

    offer = run(preparing())
    folder = place.folder / SSH_FOLDER
    shown = f"[{offer.host}]:{offer.port}" if offer.port != 22 else offer.host
    line = f"{shown} {offer.host_key}"
    known = folder / KNOWN_HOSTS_FILE
    before = known.read_text().splitlines() if known.exists() else []
    kept = [one for one in before if not one.startswith(f"{shown} ")]
    fresh = known.with_suffix(".new")
    fresh.write_text("\n".join([*kept, line, ""]))
    fresh.replace(known)
    words = [
        "ssh",
        f"-i {_quoted(folder / KEY_FILE)}",
        "-o IdentitiesOnly=yes",
        "-o StrictHostKeyChecking=yes",
        f"-o UserKnownHostsFile={_quoted(known)}",
        f"-p {offer.port}",
        f"{place.address()}@{offer.host}",
    ]
    record = {"command": " ".join(words), "known_hosts": line, "known_hosts_file": str(known)}
    show(record, as_json=as_json, text=f"{record['command']}\n# {line}")


def _audit(place: Home, as_json: bool) -> None:
    from openresource.provider.audits import verify

    file = place.folder / "provider" / "shells" / "audit.jsonl"
    if not file.exists():
        raise InvalidInput(
            f"{file} does not exist.", remedy="The trail begins with: openresource provide --shell"
        )
    entries, digest = verify(file)
    record = {"file": str(file), "entries": entries, "digest": digest}
    show(record, as_json=as_json, text=f"{file}\n{entries} entries, each as it was written; digest {digest}")


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))


def _address(text: str) -> str:
    if not is_address(text):
        raise InvalidInput(f"{text} is not an address.", remedy="An address is 0x and 40 hex digits.")
    return checksum_address(text)


def _now_ms() -> int:
    return int(time.time() * 1000)


def ssh_part(name: str) -> Any:
    """A module of the adapter, imported when it is needed; without its package a refusal."""
    try:
        return importlib.import_module(f"openresource.adapters.ssh.{name}")
    except ImportError as missing:
        if (missing.name or "").partition(".")[0] != "asyncssh":
            raise
        raise ShellExtraMissing() from None
