"""`bond`: a provider's pledge. Publishers may ask for one; it comes back some time after it is asked for."""

from typing import Any

import click

from openresource.cli.deposits import address_of, leaving_lines, withdrawn_text
from openresource.cli.output import dry_run_option, home_option, json_option, network_node_option, show
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain, uain_from_text


@click.group(epilog="\b\nExample:  openresource bond add 5\n          openresource bond show")
def bond() -> None:
    """Show, add to and withdraw a provider's bond."""


@bond.command(
    "show",
    epilog="\b\nExample:  openresource bond show\n          openresource bond show 0xAb…12 --json",
)
@click.argument("provider", required=False)
@home_option
@network_node_option
@json_option
def show_bond(provider: str | None, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show the bond and the record of PROVIDER; by default this home's wallet."""
    place = Home(home)
    address = address_of(provider) if provider else place.address()

    async def looking() -> dict[str, Any]:
        from openresource.client.bonds import bond_of
        from openresource.market.records import read_provider_record

        async with chain_of(place, node_url) as chain:
            found = await bond_of(chain, address)
            record = read_provider_record(await chain.read(f"/records/{address}"))
            return {
                "provider": address,
                "bond_uain": found.counted_uain,
                "free_uain": found.free_uain,
                "running_jobs": sorted(found.locks),
                "leaving": [
                    {"amount_uain": one.amount_uain, "at_ms": one.at_ms}
                    for one in (found.leaving or {}).values()
                ],
                "claims": record.claims,
                "claimed_uain": record.claimed_uain,
                "since_ms": record.since_ms or None,
            }

    outcome = run(looking())
    show(outcome, as_json=as_json, text=lambda: _text(outcome))


@bond.command(
    epilog="""\b
Example:  openresource bond add 5
          openresource bond add 0.5 --dry-run
\b
Exit codes: 0 bonded · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("amount")
@click.option("--to", "provider", help="Another provider's bond; it gets the money back, not you.")
@home_option
@network_node_option
@dry_run_option
@json_option
def add(
    amount: str,
    provider: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put AMOUNT of AIN into the bond of this home's wallet."""
    amount_uain = uain_from_text(amount)
    place = Home(home)
    target = address_of(provider) if provider else place.address()

    async def adding() -> dict[str, Any]:
        from openresource.client.bonds import add_to_bond, bond_of

        async with chain_of(place, node_url) as chain:
            before = await bond_of(chain, target)
            plan = {
                "provider": target,
                "added_uain": amount_uain,
                "bond_uain": before.counted_uain + amount_uain,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan
            return {**plan, "tx_hash": await add_to_bond(chain, key_of(place), amount_uain, provider=target)}

    outcome = run(adding())
    would = "would be" if dry_run else "is"
    show(
        outcome,
        as_json=as_json,
        text=f"The bond of {target} {would} {text_from_uain(outcome['bond_uain'])} AIN.",
    )


@bond.command(
    epilog="""\b
Example:  openresource bond withdraw 5
\b
Exit codes: 0 on its way · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("amount")
@home_option
@network_node_option
@dry_run_option
@json_option
def withdraw(amount: str, home: str | None, node_url: str | None, dry_run: bool, as_json: bool) -> None:
    """Ask for AMOUNT of AIN of the bond; it counts no more at once and comes back after the network's delay.

    What is locked for running jobs stays until their verdicts. What comes back waits until nothing can be shown any more
    against a run that was settled before it was asked for.
    """
    amount_uain = uain_from_text(amount)
    place = Home(home)

    async def asking() -> dict[str, Any]:
        from openresource.client.bonds import bond_of, planned_withdrawal, withdraw_bond

        async with chain_of(place, node_url) as chain:
            before = await bond_of(chain, place.address())
            plan: dict[str, Any] = {
                "provider": place.address(),
                "withdrawn_uain": amount_uain,
                "bond_uain": before.counted_uain - amount_uain,
                "dry_run": dry_run,
            }
            if dry_run:
                return plan | {"returns_at_ms": (await planned_withdrawal(chain, before, amount_uain)).at_ms}
            tx_hash, at_ms = await withdraw_bond(chain, key_of(place), amount_uain)
            return {**plan, "tx_hash": tx_hash, "returns_at_ms": at_ms}

    outcome = run(asking())
    show(outcome, as_json=as_json, text=lambda: withdrawn_text(outcome, outcome["bond_uain"]))


def _text(outcome: dict[str, Any]) -> str:
    from openresource.cli.times import moment_text

    lines = [f"{outcome['provider']}: a bond of {text_from_uain(outcome['bond_uain'])} AIN"]
    running = len(outcome["running_jobs"])
    if running:
        free = text_from_uain(outcome["free_uain"])
        until = (
            "1 running job has its verdict" if running == 1 else f"{running} running jobs have their verdicts"
        )
        lines.append(f"  {free} AIN of it are free; the rest is locked until {until}")
    lines += leaving_lines(outcome["leaving"])
    if outcome["since_ms"]:
        count = outcome["claims"]
        lines.append(
            f"  {count} claim{'s'[: count != 1]} since {moment_text(outcome['since_ms'])}, "
            f"{text_from_uain(outcome['claimed_uain'])} AIN in all"
        )
    else:
        lines.append("  no claim yet")
    return "\n".join(lines)
