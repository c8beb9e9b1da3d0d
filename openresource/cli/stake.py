"""`stake`: coins that give their owner a say in votes of the network; they come back some time after they are asked for."""

from typing import Any

import click

from openresource.cli.deposits import address_of, leaving_lines, withdrawn_text
from openresource.cli.output import dry_run_option, home_option, json_option, network_node_option, show
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain, uain_from_text


@click.group(epilog="\b\nExample:  openresource stake add 5\n          openresource stake show")
def stake() -> None:
    """Show, add to and withdraw a stake; it is your weight in votes that begin later."""


@stake.command(
    "show",
    epilog="\b\nExample:  openresource stake show\n          openresource stake show 0xAb…12 --json",
)
@click.argument("address", required=False)
@home_option
@network_node_option
@json_option
def show_stake(address: str | None, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show the stake of ADDRESS; by default this home's wallet."""
    place = Home(home)
    owner = address_of(address) if address else place.address()

    async def looking() -> dict[str, Any]:
        from openresource.client.stakes import all_stake_uain, stake_of

        async with chain_of(place, node_url) as chain:
            found = await stake_of(chain, owner)
            return {
                "address": owner,
                "stake_uain": found.counted_uain,
                "all_stake_uain": await all_stake_uain(chain),
                "leaving": [
                    {"amount_uain": one.amount_uain, "at_ms": one.at_ms} for one in found.leaving.values()
                ],
            }

    outcome = run(looking())
    show(outcome, as_json=as_json, text=lambda: _text(outcome))


@stake.command(
    epilog="""\b
Example:  openresource stake add 5
          openresource stake add 0.5 --dry-run
\b
Exit codes: 0 staked · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("amount")
@home_option
@network_node_option
@dry_run_option
@json_option
def add(amount: str, home: str | None, node_url: str | None, dry_run: bool, as_json: bool) -> None:
    """Stake AMOUNT of AIN; it counts in votes that begin after this."""
    amount_uain = uain_from_text(amount)
    place = Home(home)

    async def adding() -> dict[str, Any]:
        from openresource.client.stakes import add_to_stake, stake_of

        async with chain_of(place, node_url) as chain:
            before = await stake_of(chain, place.address())
            plan: dict[str, Any] = {
                "address": before.address,
                "added_uain": amount_uain,
                "stake_uain": before.counted_uain + amount_uain,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            return {**plan, "tx_hash": await add_to_stake(chain, key_of(place), amount_uain)}

    outcome = run(adding())
    would = "would be" if dry_run else "is"
    text = f"The stake of {outcome['address']} {would} {text_from_uain(outcome['stake_uain'])} AIN."
    show(outcome, as_json=as_json, text=text)


@stake.command(
    epilog="""\b
Example:  openresource stake withdraw 5
\b
Exit codes: 0 on its way · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("amount")
@home_option
@network_node_option
@dry_run_option
@json_option
def withdraw(amount: str, home: str | None, node_url: str | None, dry_run: bool, as_json: bool) -> None:
    """Ask for AMOUNT of AIN of the stake; it counts no more at once and comes back after the network's delay."""
    amount_uain = uain_from_text(amount)
    place = Home(home)

    async def asking() -> dict[str, Any]:
        from openresource.client.stakes import stake_of, withdraw_stake

        async with chain_of(place, node_url) as chain:
            before = await stake_of(chain, place.address())
            plan: dict[str, Any] = {
                "address": before.address,
                "withdrawn_uain": amount_uain,
                "stake_uain": before.counted_uain - amount_uain,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            tx_hash, at_ms = await withdraw_stake(chain, key_of(place), amount_uain)
            return {**plan, "tx_hash": tx_hash, "returns_at_ms": at_ms}

    outcome = run(asking())
    show(outcome, as_json=as_json, text=lambda: withdrawn_text(outcome, outcome["stake_uain"]))


def _text(outcome: dict[str, Any]) -> str:
    lines = [f"{outcome['address']}: a stake of {text_from_uain(outcome['stake_uain'])} AIN"]
    if outcome["all_stake_uain"]:
        share = outcome["stake_uain"] / outcome["all_stake_uain"]
        all_stake = text_from_uain(outcome["all_stake_uain"])
        lines.append(f"  {share:.1%} of all {all_stake} AIN that are staked")
    return "\n".join([*lines, *leaving_lines(outcome["leaving"])])
