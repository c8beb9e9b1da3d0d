"""`services` and `quote`: what is on offer, what its methods take, and what a call would cost."""

import textwrap
from typing import Any

import click

from openresource.cli.output import home_option, json_option, network_node_option, say, show
from openresource.cli.session import client_of, run
from openresource.market.allowances import ANY_SERVICE, DEPTH_DEFAULT
from openresource.market.services import fork_source_text
from openresource.primitives.amounts import UAIN_PER_AIN, text_from_uain
from openresource.primitives.errors import Refusal

SUMMARY_CHARACTERS_MAX = 90
PLACEMENTS_SHOWN = 2
PLACEMENTS_SHOWN_ALONE = 20


@click.command(
    epilog="""\b
Example:  openresource services
          openresource services search
          openresource services sentiment --interface
          openresource services show sentiment
\b
Exit codes: 0 done (also when nothing fits) · 1 refused · 2 wrong usage · 3 node away"""
)
@click.argument("query", nargs=-1)
@click.option(
    "--interface", is_flag=True, help="Show what the methods of the one service QUERY take and give."
)
@home_option
@network_node_option
@json_option
def services(
    query: tuple[str, ...], interface: bool, home: str | None, node_url: str | None, as_json: bool
) -> None:
    """List the services whose name, summary or domain hold every word of QUERY; those that run come first.

    `services show SERVICE` tells all of one: what the chain saw of it, where it comes from, and where it stands.
    """
    if len(query) == 2 and query[0] == "show":
        shown = run(_shown(query[1], home, node_url))
        show(shown, as_json=as_json, text=lambda: _shown_text(shown))
        return
    words = " ".join(query)
    if interface:
        record = run(_interface(words, home, node_url))
        show(record, as_json=as_json, text=lambda: _interface_text(record))
        return

    async def searching() -> list[dict[str, Any]]:
        async with client_of(home, node_url) as client:
            return [_listing_record(listing) for listing in await client.services(words)]

    found = run(searching())
    if as_json:
        show(found, as_json=True, text="")
        return
    if not found:
        what = f"No service fits {words!r}." if words else "There is no service on this network yet."
        say(f"{what}  Publish one:  openresource publish FOLDER")
    for record in found:
        say(_listing_text(record, is_only=len(found) == 1))


@click.command(
    epilog="""\b
Example:  openresource quote sentiment
          openresource quote 0xAb…12/search@1.2.0 embed --json
\b
Exit codes: 0 somebody offers it · 1 no such service, or nobody runs it · 2 wrong usage · 3 node away"""
)
@click.argument("service")
@click.argument("method", required=False)
@home_option
@network_node_option
@json_option
def quote(service: str, method: str | None, home: str | None, node_url: str | None, as_json: bool) -> None:
    """Show what a call of SERVICE would cost, provider by provider, the best first; nothing is spent."""

    async def quoting() -> dict[str, Any]:
        from openresource.client.calls import NoProvider

        async with client_of(home, node_url) as client:
            choice, offers = await client.quote(service)
            interface = await client.directory.interface(choice.program)
            found = interface.method(method, choice.service)
            if not offers:
                raise NoProvider(service=choice.service, version=choice.version.version)
            return {
                "service": choice.service,
                "version": choice.version.version,
                "program": choice.program,
                "method": found.name,
                "unit": choice.version.unit,
                "exactness": choice.version.exactness,
                "offers": [_offer_record(placement, price) for placement, price in offers],
                "calls": await _calls_record(client, interface.calls),
            }

    record = run(quoting())
    show(record, as_json=as_json, text=lambda: _quote_text(record))


async def _calls_record(client: Any, declared: Any) -> dict[str, Any] | None:
    """Which others a service calls, what it says that costs, and what each of them costs now; None: it calls nobody."""
    if declared is None:
        return None
    return {
        "services": [await _called_record(client, service) for service in declared.services],
        "allowance_uain": declared.allowance_uain,
        "depth": declared.depth,
    }


async def _called_record(client: Any, service: str) -> dict[str, Any]:
    if service == ANY_SERVICE:
        return {"service": service, "from_uain": None, "trouble": ""}
    try:
        choice, offers = await client.quote(service)
    except Refusal as refusal:
        return {"service": service, "from_uain": None, "trouble": refusal.message}
    prices = [price.total_uain for _, price in offers]
    trouble = "" if prices else "nobody runs it just now"
    return {"service": choice.service, "from_uain": min(prices, default=None), "trouble": trouble}


async def _interface(service: str, home: str | None, node_url: str | None) -> dict[str, Any]:
    from openresource.cli.inputs import usage_of

    async with client_of(home, node_url) as client:
        choice = await client.directory.choose(service)
        found = await client.directory.interface(choice.program)
    return {
        "service": choice.service,
        "version": choice.version.version,
        "program": choice.program,
        "summary": choice.version.summary,
        "methods": [
            {
                "name": method.name,
                "path": method.path,
                "summary": method.summary,
                "input": method.input,
                "output": method.output,
                "stream": method.stream,
                "example": method.example,
                "call": usage_of(choice.name, method),
            }
            for method in found.methods
        ],
    }


async def _shown(service: str, home: str | None, node_url: str | None) -> dict[str, Any]:
    """One service with its lineage, its forks, and what was decided and said about it."""
    from openresource.cli.program import story_record
    from openresource.client.forks import forks_of, lineage_of
    from openresource.client.kills import story_of
    from openresource.client.services import NoSuchService

    async with client_of(home, node_url) as client:
        directory, chain = client.directory, client.chain
        choice = await directory.choose(service)
        listing = await directory.listing(choice.publisher, choice.name)
        if listing is None:
            raise NoSuchService(service=service)
        lineage = await lineage_of(chain, choice.version)
        forks = await forks_of(chain, choice.publisher, choice.name)
        story = await story_of(chain, choice.program)
    return {
        **_listing_record(listing),
        "version": choice.version.version,
        "program": choice.program,
        "lineage": [
            {
                "service": f"{one.source.publisher}/{one.source.name}",
                "version": one.version.version if one.version is not None else None,
                "program": one.source.program,
            }
            for one in lineage
        ],
        "forks": [{"service": f"{one.publisher}/{one.name}", "of_program": one.program} for one in forks],
        **{name: value for name, value in story_record(story).items() if name != "program"},
    }


def _shown_text(record: dict[str, Any]) -> str:
    from openresource.cli.program import story_text

    lines = [_listing_text(record, is_only=True)]
    lines += [f"    {one['text']}: {one['why']}" for one in record["labels"]]
    if record["is_renounced"]:
        lines.append("    nobody owns it: no version, choice or permission of it can change")
    lines += [
        f"    made from {one['service']} {one['version'] or ''} ({one['program']})"
        for one in record["lineage"]
    ]
    lines += [f"    forked as {one['service']}" for one in record["forks"]]
    return "\n".join([*lines, story_text(record)])


def _listing_record(listing: Any) -> dict[str, Any]:
    choice, version = listing.choice, listing.choice.version
    return {
        "service": choice.service,
        "publisher": choice.publisher,
        "name": choice.name,
        "version": version.version,
        "versions": listing.versions,
        "program": choice.program,
        "summary": version.summary,
        "license": version.license,
        "domain": version.domain,
        "exactness": version.exactness,
        "labels": [{"kind": label.kind, "text": label.text, "why": label.why} for label in listing.labels],
        "fork_of": fork_source_text(version.fork_of) if version.fork_of is not None else None,
        "is_renounced": listing.is_renounced,
        "stopped": listing.stopped,
        "unit": version.unit,
        "from_uain": listing.from_uain,
        "providers": len(listing.placements),
        "isolation": sorted({placement.isolation for placement in listing.placements}),
        "placements": [_placement_record(placement) for placement in listing.placements],
        "refusals": [
            {"provider": placement.provider, "reason": placement.reason} for placement in listing.refusals
        ],
    }


def _placement_record(placement: Any) -> dict[str, Any]:
    from openresource.market.hardware import hardware_record
    from openresource.market.placements import limits_not_held, placement_words

    return {
        "provider": placement.provider,
        "endpoint": placement.endpoint,
        "isolation": placement.isolation,
        "capacity": placement.capacity,
        "ask_uain": placement.ask_uain,
        "runtime": placement.runtime,
        "runtime_class": placement.runtime_class,
        "warm": placement.warm,
        "start_ms": placement.start_ms,
        "limits": placement.limits,
        "limits_not_held": list(limits_not_held(placement)),
        "hardware": hardware_record(placement.hardware),
        "region": placement.region,
        "build": placement.build,
        "grpc": placement.grpc,
        "words": list(placement_words(placement)),
    }


def _short(summary: str) -> str:
    """A summary on one line; one that was cut ends with a word and says so."""
    return textwrap.shorten(summary, SUMMARY_CHARACTERS_MAX, placeholder=" …")


def _listing_text(record: dict[str, Any], *, is_only: bool = False) -> str:
    if record["from_uain"] is None:
        price = "nobody runs it"
    else:
        count = record["providers"]
        price = (
            f"{text_from_uain(record['from_uain'])} AIN a {record['unit']}, {count} provider{'s'[: count != 1]}, "
            f"{' and '.join(record['isolation'])}"
        )
    if record["stopped"]:
        price = f"stopped by a vote: {record['stopped']}"
    head = f"{click.style(record['name'], bold=True)} {record['version']}  {price}"
    labels = ", ".join(label["text"] for label in record["labels"])
    lines = [head, f"    {_short(record['summary'])}", f"    {record['service']}  {labels}"]
    shown = PLACEMENTS_SHOWN_ALONE if is_only else PLACEMENTS_SHOWN
    lines.extend(
        f"    {one['provider']}: {one['isolation']}, {', '.join(one['words'])}"
        for one in record["placements"][:shown]
    )
    if record["providers"] > shown:
        lines.append(f"    and {record['providers'] - shown} more: openresource quote {record['service']}")
    if not record["providers"]:
        lines.extend(
            f"    {one['provider']} cannot run it: {one['reason']}" for one in record["refusals"][:3]
        )
    return "\n".join(lines)


def _offer_record(placement: Any, price: Any) -> dict[str, Any]:
    total_uain = price.total_uain
    fee_uain = total_uain * price.fee_ppm // 1_000_000
    return {
        **_placement_record(placement),
        "total_uain": total_uain,
        "ask_uain": price.ask_uain,
        "royalty_uain": price.royalty_uain,
        "fee_uain": fee_uain,
        "fee_ppm": price.fee_ppm,
        "unit": price.unit,
        "calls_per_ain": UAIN_PER_AIN // total_uain if total_uain else None,
    }


def _quote_text(record: dict[str, Any]) -> str:
    lines = [f"{record['service']} {record['version']}, method {record['method']}"]
    for offer in record["offers"]:
        per_ain = offer["calls_per_ain"]
        buys = "free" if per_ain is None else f"1 AIN buys {per_ain:,} calls"
        lines.append(
            f"  {text_from_uain(offer['total_uain'])} AIN a {offer['unit']}  "
            f"(ask {text_from_uain(offer['ask_uain'])}, royalty {text_from_uain(offer['royalty_uain'])}; "
            f"the market's fee of {offer['fee_ppm'] / 10_000:g} % is inside)  {buys}"
        )
        lines.append(
            f"    {offer['provider']} at {offer['endpoint']}, isolation {offer['isolation']}, "
            f"{offer['capacity']} at once, {', '.join(offer['words'])}"
        )
    return "\n".join((*lines, *_calls_lines(record["calls"])))


def _calls_lines(calls: dict[str, Any] | None) -> list[str]:
    if calls is None:
        return []
    usual = (
        f", usually for {text_from_uain(calls['allowance_uain'])} AIN a call"
        if calls["allowance_uain"]
        else ""
    )
    option = f" {text_from_uain(calls['allowance_uain'])}" if calls["allowance_uain"] else " AMOUNT"
    depth = f" --depth {calls['depth']}" if calls["depth"] != DEPTH_DEFAULT else ""
    lines = [f"  It calls others, which you pay as far as you allow it{usual}: --allow{option}{depth}"]
    for one in calls["services"]:
        if one["service"] == ANY_SERVICE:
            lines.append("    any service: name those that you mean with --allow-service")
            continue
        price = "" if one["from_uain"] is None else f" from {text_from_uain(one['from_uain'])} AIN"
        trouble = f" ({one['trouble'].rstrip('.')})" if one["trouble"] else ""
        lines.append(f"    {one['service']}{price}{trouble}")
    return lines


def _interface_text(record: dict[str, Any]) -> str:
    import json

    lines = [f"{record['service']} {record['version']}: {record['summary']}"]
    for method in record["methods"]:
        streams = "  (streams)" if method["stream"] else ""
        lines.append(f"\n{click.style(method['name'], bold=True)}{streams}  {method['summary']}")
        properties = method["input"].get("properties") or {}
        required = set(method["input"].get("required") or ())
        for name, schema in properties.items():
            kind = schema.get("type") or (
                "one of " + json.dumps(schema["enum"]) if "enum" in schema else "anything"
            )
            default = f", else {json.dumps(schema['default'])}" if "default" in schema else ""
            needed = "" if name in required else " (optional" + default + ")"
            about = f"  {schema['description']}" if schema.get("description") else ""
            lines.append(f"    {name}: {kind}{needed}{about}")
        lines.append(f"    {method['call']}")
    return "\n".join(lines)
