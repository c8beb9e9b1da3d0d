"""`provider`: what the chain knows of a provider's work, and the same in the form of ERC-8004."""

import json
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import home_option, json_option, network_node_option, show
from openresource.cli.session import chain_of, run
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import InvalidInput
from openresource.primitives.keys import checksum_address, is_address


@click.group(epilog="\b\nExample:  openresource provider reputation 0xAb…12")
def provider() -> None:
    """What the chain knows of a provider's work."""


@provider.command(
    epilog="""\b
Example:  openresource provider reputation
          openresource provider reputation 0xAb…12 --json
          openresource provider reputation 0xAb…12 --erc8004 --into ./agent
\b
Exit codes: 0 done · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("address", required=False)
@click.option("--erc8004", is_flag=True, help="Give the registration and feedback files of ERC-8004.")
@click.option(
    "--registered",
    "registered",
    multiple=True,
    metavar="REGISTRY=NUMBER",
    help="Where it is registered, such as eip155:1:0x8004…=22. Repeatable; by default this chain.",
)
@click.option("--into", "folder", type=click.Path(file_okay=False), help="Write the files into this folder.")
@home_option
@network_node_option
@json_option
def reputation(
    address: str | None,
    erc8004: bool,
    registered: tuple[str, ...],
    folder: str | None,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Show the reputation of a provider, by default this home's, as anybody can compute it from the chain.

    It counts fees that buyers have irrevocably paid for its work, each buyer's less the more there are of it, and in
    full only what others have verified.
    """
    place = Home(home)
    if address and not is_address(address):
        raise InvalidInput(f"{address} is not an address.", remedy="An address is 0x and 40 hex digits.")
    who = checksum_address(address) if address else place.address()
    if erc8004:
        files = run(_files(place, node_url, who, registered))
        if folder is not None:
            written = _write(Path(folder), files)
            show({"files": written}, as_json=as_json, text=f"Wrote {len(written)} files into {folder}.")
            return
        show(files, as_json=as_json, text=lambda: json.dumps(files, indent=1, ensure_ascii=False))
        return

    async def looking() -> dict[str, Any]:
        from openresource.client.reputation import standing_of
        from openresource.market.reputation import reputation_record

        async with chain_of(place, node_url) as chain:
            found = await standing_of(chain, who)
            return {"provider": who, "height": found.height, **reputation_record(found.reputation)}

    outcome = run(looking())
    show(outcome, as_json=as_json, text=lambda: _text(outcome))


async def _files(place: Home, node_url: str | None, who: str, registered: tuple[str, ...]) -> dict[str, Any]:
    from openresource.client.reputation import erc8004_of
    from openresource.client.services import Directory
    from openresource.market.erc8004 import parse_registration

    places = [parse_registration(text) for text in registered]
    async with chain_of(place, node_url) as chain:
        return await erc8004_of(chain, Directory(chain), who, places)


def _write(folder: Path, files: dict[str, Any]) -> list[str]:
    """`registration.json`, and each feedback in a file of its own, as registries take them by address."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"registration.json": files["registration"]} | {
        f"feedback-{number}.json": one for number, one in enumerate(files["feedback"], 1)
    }
    for name, content in named.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return list(named)


def _text(outcome: dict[str, Any]) -> str:
    from openresource.cli.times import moment_text

    lines = [f"{outcome['provider']}: a reputation of {text_from_uain(outcome['score_uain'])} AIN"]
    buyers = outcome["buyers"]
    lines.append(
        f"  {buyers} buyer{'s'[: buyers != 1]} have paid {text_from_uain(outcome['fee_uain'])} AIN in fees for its work, "
        f"which weigh {text_from_uain(outcome['weighted_uain'])} AIN"
    )
    lines.append(
        f"  {outcome['audited_ppm'] / 10_000:.1f} % of that counts: {outcome['valid']} results verified by others, "
        f"{outcome['faults']} faults proven, {outcome['streak']} in a row"
    )
    if outcome["since_ms"]:
        lines.append(
            f"  {outcome['claims']} claims since {moment_text(outcome['since_ms'])}, "
            f"{text_from_uain(outcome['claimed_uain'])} AIN in all"
        )
    return "\n".join(lines)
