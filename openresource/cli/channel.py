"""`channel`: list, open, extend and close payment channels; calls do all of this by themselves."""

import re
from typing import Any

import click

from openresource.cli.output import (
    Progress,
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    report_failure,
    say,
    show,
)
from openresource.cli.session import client_of, run
from openresource.primitives.amounts import text_from_uain, uain_from_text
from openresource.primitives.errors import InvalidInput, Refusal

_SPAN = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class NoOffer(Refusal):
    template = "{provider} does not offer {service} now."
    way_out = "See who does: openresource quote {service}"


class SessionUnknown(Refusal):
    template = (
        "The books of this home do not know the channel {channel}, so its provider cannot be asked to settle."
    )
    way_out = "Close it after its expiry; then the wallet alone is enough."


class ChannelNeverUsed(Refusal):
    template = (
        "Nothing was ever paid from the channel {channel}, so its provider has no paper to settle it with."
    )
    way_out = "It returns after its expiry, {returns}; or pay one call from it and close it then."


@click.group(epilog="\b\nExample:  openresource channel list\n          openresource channel close 3f9c0a…")
def channel() -> None:
    """List, open, extend and close payment channels."""


@channel.command(
    "list",
    epilog="\b\nExample:  openresource channel list --json\n\b\nExit codes: 0 done · 1 refused · 3 node away",
)
@home_option
@network_node_option
@json_option
def list_channels(home: str | None, node_url: str | None, as_json: bool) -> None:
    """List the channels of this home's wallet that hold money."""
    found = run(_listed(home, node_url))
    if as_json:
        show(found, as_json=True, text="")
        return
    if not found:
        click.echo("No channel holds money. The next call opens one by itself.")
    for record in found:
        say(_text(record))


@channel.command(
    "open",
    epilog="""\b
Example:  openresource channel open sentiment 0.1
          openresource channel open search 0.5 --lifetime 7d --provider 0xAb…12
\b
Exit codes: 0 open · 1 refused · 2 wrong usage · 3 node away · 5 over a spending limit""",
)
@click.argument("service")
@click.argument("deposit")
@click.option("--provider", help="The provider to pay. Default: the best offer.")
@click.option("--lifetime", help="How long it lives, such as 12h or 7d. Default: the network's.")
@home_option
@network_node_option
@dry_run_option
@json_option
def open_channel(
    service: str,
    deposit: str,
    provider: str | None,
    lifetime: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put DEPOSIT (AIN) into a channel that pays for calls of SERVICE."""
    deposit_uain = uain_from_text(deposit)
    lifetime_ms = None if lifetime is None else span_ms(lifetime)

    async def opening() -> dict[str, Any]:
        async with client_of(home, node_url) as client:
            choice, offers = await client.quote(service)
            wanted = [offer for offer in offers if provider in (None, offer[0].provider)]
            if not wanted:
                raise NoOffer(provider=provider or "Nobody", service=choice.service)
            placement, price = wanted[0]
            _check_deposit(client, deposit_uain)
            record = {
                "service": choice.service,
                "provider": placement.provider,
                "deposit_uain": deposit_uain,
                "calls": deposit_uain // price.total_uain if price.total_uain else None,
                "dry_run": dry_run,
            }
            if dry_run:
                return record
            held = await (await client.channels()).open(
                choice, placement, price, deposit_uain=deposit_uain, lifetime_ms=lifetime_ms
            )
            return {**record, "channel": held.entry.name, "expires_at_ms": held.purse.expires_at_ms}

    record = run(opening())
    done = "Would put" if dry_run else "Put"
    calls = "" if record["calls"] is None else f", enough for {record['calls']} calls"
    where = "" if dry_run else f"\n{record['channel'].rpartition('/')[2]}"
    show(
        record,
        as_json=as_json,
        text=f"{done} {text_from_uain(deposit_uain)} AIN into a channel to {record['provider']}{calls}.{where}",
    )


@channel.command(
    epilog="""\b
Example:  openresource channel extend 3f9c0a… --by 24h --add 0.1
\b
Exit codes: 0 done · 1 refused · 2 wrong usage · 3 node away · 5 over a spending limit"""
)
@click.argument("name")
@click.option("--by", "span", default="24h", show_default=True, help="How much longer from now it lives.")
@click.option("--add", "amount", help="Also put so many AIN into it.")
@home_option
@network_node_option
@dry_run_option
@json_option
def extend(
    name: str,
    span: str,
    amount: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let the channel NAME live longer, and add money to it."""
    import time

    longer_ms = span_ms(span)
    amount_uain = 0 if amount is None else uain_from_text(amount)

    async def extending() -> dict[str, Any]:
        async with client_of(home, node_url) as client:
            channels = await client.channels()
            full = await full_name(client, name)
            shown = (await channels.on_chain(full)).channel
            expires_at_ms = max(shown.expires_at_ms, int(time.time() * 1000) + longer_ms)
            if amount_uain:
                _check_deposit(client, shown.value_uain + amount_uain)
            record = {
                "channel": full,
                "expires_at_ms": expires_at_ms,
                "value_uain": shown.value_uain + amount_uain,
                "dry_run": dry_run,
            }
            if not dry_run:
                if expires_at_ms > shown.expires_at_ms:
                    await channels.extend(full, expires_at_ms)
                if amount_uain:
                    await channels.add(full, amount_uain)
            return record

    from openresource.cli.times import until_text

    record = run(extending())
    lives = "would live" if dry_run else "lives"
    show(
        record,
        as_json=as_json,
        text=f"The channel {lives} until {until_text(record['expires_at_ms'])} with "
        f"{text_from_uain(record['value_uain'])} AIN.",
    )


@channel.command(
    epilog="""\b
Example:  openresource channel close 3f9c0a…
          openresource channel close --all
\b
Exit codes: 0 the money is back · 1 refused (it returns after the expiry) · 2 wrong usage · 3 node or provider away"""
)
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Close all channels of this wallet.")
@home_option
@network_node_option
@dry_run_option
@json_option
def close(
    name: str | None, every: bool, home: str | None, node_url: str | None, dry_run: bool, as_json: bool
) -> None:
    """Get the rest of the channel NAME back: the provider is asked to settle at once; after the expiry it needs nobody."""
    if (name is None) == (not every):
        raise click.UsageError("Name one channel, or say --all.")
    progress = Progress(quiet=as_json)

    refusals: list[Refusal] = []

    async def closing() -> list[dict[str, Any]]:
        async with client_of(home, node_url) as client:
            if not every:
                return [
                    await close_one(client, await full_name(client, str(name)), progress, dry_run=dry_run)
                ]
            closed = []
            for record in await _records(client):
                try:
                    closed.append(await close_one(client, record["channel"], progress, dry_run=dry_run))
                except Refusal as refusal:
                    # The others are closed all the same; this one is reported at the end.
                    refusals.append(refusal)
            return closed

    closed = run(closing())
    progress.clear()
    for record in closed:
        back = text_from_uain(record["returned_uain"])
        text = f"{record['channel']}: {back} AIN are back in the wallet ({record['how']})."
        if dry_run:
            text = f"{record['channel']}: up to {back} AIN would return ({record['how']})."
        show(record, as_json=as_json, text=text)
    if not closed and not refusals and not as_json:
        click.echo("No channel holds money.")
    for refusal in refusals[:-1]:
        report_failure(refusal)
    if refusals:
        raise refusals[-1]


async def close_one(client: Any, name: str, progress: Any, *, dry_run: bool = False) -> dict[str, Any]:
    """Close one channel by whichever way is open, and say what came back."""
    import time

    from openresource.cli.times import until_text

    channels = await client.channels()
    shown = (await channels.on_chain(name)).channel
    is_over = time.time() * 1000 >= shown.expires_at_ms
    how = "it had expired" if is_over else "settled by the provider"
    if dry_run:
        return {"channel": name, "returned_uain": shown.value_uain, "how": how, "dry_run": True}
    entry = client.books.channel(name)
    if not is_over and entry is None:
        raise SessionUnknown(channel=name)
    if not is_over and entry.purse.signed_uain == 0:
        raise ChannelNeverUsed(channel=name, returns=until_text(shown.expires_at_ms))
    before_uain = await client.balance()
    if is_over:
        progress(f"taking back {name}")
        await channels.take_back(name)
    else:
        progress(f"asking {shown.provider} to settle {name}")
        await (await client.calls()).settle(name)
    after_uain = await client.balance()
    return {"channel": name, "returned_uain": max(0, after_uain - before_uain), "how": how}


async def full_name(client: Any, name: str) -> str:
    """`<buyer>/<id>` of a channel that is named by its id, or by the beginning of it."""
    if "/" in name:
        return name
    matches = [record["channel"] for record in await _records(client)]
    found = [one for one in matches if one.rpartition("/")[2].startswith(name)]
    if len(found) == 1:
        return str(found[0])
    from openresource.client.channels import NoSuchChannel

    if not found:
        raise NoSuchChannel(channel=name)
    raise InvalidInput(f"{name} is the beginning of {len(found)} channels.", remedy="Write more of it.")


def span_ms(text: str) -> int:
    """Milliseconds of a span such as 90s, 30m, 12h or 7d."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise click.UsageError(f"{text!r} is not a span of time; write 90s, 30m, 12h or 7d.")
    return int(match[1]) * _UNIT_MS[match[2]]


def _check_deposit(client: Any, deposit_uain: int) -> None:
    from openresource.client.calls import OverSpendingLimit

    limit_uain = client.home.limits().channel_deposit_uain
    if deposit_uain > limit_uain:
        raise OverSpendingLimit(
            f"{text_from_uain(deposit_uain)} AIN in one channel are above the limit of {text_from_uain(limit_uain)} AIN.",
            remedy="Raise it if you mean it: openresource money limit --channel AMOUNT",
        )


async def _listed(home: str | None, node_url: str | None) -> list[dict[str, Any]]:
    async with client_of(home, node_url) as client:
        return await _records(client)


async def _records(client: Any) -> list[dict[str, Any]]:
    found = await client.money()
    channels = await client.channels()
    records = []
    for coins in found.places:
        if coins.place == "channel":
            shown = await channels.on_chain(coins.name)
            entry = client.books.channel(coins.name)
            records.append(
                {
                    "channel": coins.name,
                    "service": f"{shown.terms.publisher}/{shown.terms.name}",
                    "provider": shown.terms.provider,
                    "value_uain": shown.channel.value_uain,
                    "spent_uain": 0 if entry is None else entry.purse.earned_uain,
                    "price_uain": shown.terms.price.total_uain,
                    "expires_at_ms": shown.channel.expires_at_ms,
                    "nonce": shown.channel.nonce,
                }
            )
    return records


def _text(record: dict[str, Any]) -> str:
    from openresource.cli.times import until_text

    return (
        f"{record['channel'].rpartition('/')[2]}  {text_from_uain(record['value_uain'])} AIN, "
        f"{text_from_uain(record['spent_uain'])} of it spent, for {record['service'].rpartition('/')[2]} at {record['provider']}\n"
        f"    {text_from_uain(record['price_uain'])} AIN a call; returns {until_text(record['expires_at_ms'])}"
    )
