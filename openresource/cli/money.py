"""`money`: where each coin is and when it returns, what was spent, and the limits."""

from dataclasses import replace
from typing import Any

import click

from openresource.cli.output import home_option, json_option, network_node_option, show, usage_error
from openresource.cli.session import client_of, run
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain, uain_from_text


@click.group(
    invoke_without_command=True,
    epilog="""\b
Example:  openresource money
          openresource money limit --per-call 0.05 --per-day 2
\b
Exit codes: 0 done · 1 refused · 2 wrong usage · 3 node away""",
)
@home_option
@network_node_option
@json_option
@click.pass_context
def money(context: click.Context, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show where each coin is and when it returns."""
    if context.invoked_subcommand is not None:
        return

    async def looking() -> Any:
        async with client_of(home, node_url) as client:
            return await client.money()

    found = run(looking())
    show(_record(found), as_json=as_json, text=lambda: _text(found))


@money.command(
    epilog="""\b
Example:  openresource money limit
          openresource money limit --per-call 0.05 --per-day 2 --channel 0.5
\b
Exit codes: 0 done · 1 refused · 2 wrong usage"""
)
@click.option("--per-call", help="The most that one call may cost, in AIN.")
@click.option("--per-day", help="The most that all calls of 24 hours may cost, in AIN.")
@click.option("--channel", "channel_deposit", help="The most that is put into one payment channel, in AIN.")
@home_option
@json_option
def limit(
    per_call: str | None, per_day: str | None, channel_deposit: str | None, home: str | None, as_json: bool
) -> None:
    """Show or set what this home's wallet may spend."""
    place = Home(home)
    given = {
        name: uain_from_text(text)
        for name, text in (
            ("per_call_uain", per_call),
            ("per_day_uain", per_day),
            ("channel_deposit_uain", channel_deposit),
        )
        if text is not None
    }
    limits = replace(place.limits(), **given)
    if limits.per_call_uain > limits.per_day_uain:
        usage_error("A single call may not cost more than a whole day: raise --per-day as well.")
    if given:
        place.write_limits(limits)
    show(_limits_record(limits), as_json=as_json, text=_limits_text(limits))


def _record(found: Any) -> dict[str, Any]:
    return {
        "address": found.address,
        "total_uain": found.total_uain,
        "total": text_from_uain(found.total_uain),
        "places": [
            {
                "place": coins.place,
                "name": coins.name,
                "amount_uain": coins.amount_uain,
                "promised_uain": coins.promised_uain,
                "returns_at_ms": coins.returns_at_ms or None,
                "returns_by_itself": coins.returns_by_itself,
                "how": coins.how,
            }
            for coins in found.places
        ],
        "spent_last_24_hours_uain": found.spent_day_uain,
        "limits": _limits_record(found.limits),
    }


def _text(found: Any) -> str:
    from openresource.cli.times import until_text

    lines = [f"{text_from_uain(found.total_uain)} AIN in all, of {found.address}"]
    for coins in found.places:
        amount = f"{text_from_uain(coins.amount_uain):>16} AIN"
        if coins.place == "wallet":
            lines.append(f"{amount}  in the wallet, {coins.how}")
            continue
        spent = f", {text_from_uain(coins.promised_uain)} of it promised" if coins.promised_uain else ""
        name = coins.name.rpartition("/")[2] if coins.place == "channel" else coins.name
        lines.append(f"{amount}  in {coins.place} {name}{spent}")
        when = f"returns {until_text(coins.returns_at_ms)}:" if coins.returns_at_ms else "returns"
        lines.append(f"{'':22}{when} {coins.how}")
    lines.append(
        f"Spent on calls in the last 24 hours: {text_from_uain(found.spent_day_uain)} of "
        f"{text_from_uain(found.limits.per_day_uain)} AIN"
    )
    lines.append(_limits_text(found.limits))
    return "\n".join(lines)


def _limits_record(limits: Any) -> dict[str, Any]:
    return {
        "per_call_uain": limits.per_call_uain,
        "per_day_uain": limits.per_day_uain,
        "channel_deposit_uain": limits.channel_deposit_uain,
    }


def _limits_text(limits: Any) -> str:
    return (
        f"Limits: {text_from_uain(limits.per_call_uain)} AIN a call, {text_from_uain(limits.per_day_uain)} AIN in 24 hours, "
        f"{text_from_uain(limits.channel_deposit_uain)} AIN in one channel   (change them: openresource money limit)"
    )
