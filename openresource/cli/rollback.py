"""`rollback`: an earlier version is what a service's name means again, without a call that fails on the way."""

from typing import Any

import click

from openresource.cli.output import (
    Progress,
    dry_run_option,
    home_option,
    json_option,
    network_node_option,
    show,
)
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal


class NotYourService(Refusal):
    template = "{service} belongs to {publisher}; this wallet is {address}."
    way_out = "Name one of your own services, or the home of its publisher with --home."


VERSIONS_SHOWN_MAX = 10


class NothingToGoBackTo(Refusal):
    template = "{service} has no version before {version}; it has {known}."
    way_out = "Publish another one, or name one of those: openresource rollback {service} VERSION"


@click.command(
    epilog="""\b
Example:  openresource rollback my-service
          openresource rollback my-service 1.2.0
\b
Exit codes: 0 chosen, running, and seen by every caller · 1 refused · 2 wrong usage · 3 node away
            4 chosen, but nobody runs it yet (the choice stays, and what ran before serves) · 130 interrupted"""
)
@click.argument("service")
@click.argument("version", required=False)
@click.option(
    "--deadline",
    "deadline_seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a provider.",
)
@home_option
@network_node_option
@dry_run_option
@json_option
def rollback(
    service: str,
    version: str | None,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make an earlier VERSION of your SERVICE the one that its name means, and wait until somebody runs it.

    Without a VERSION it is the one that was chosen before. Versions never change, so going forth again is the same
    command; providers keep the last releases on their disks.
    """
    outcome = run(_rolled_back(service, version, deadline_seconds, home, node_url, dry_run, as_json))
    show(outcome, as_json=as_json, text=lambda: _text(outcome))


async def _rolled_back(
    service: str,
    wanted: str | None,
    deadline_seconds: float,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> dict[str, Any]:
    from openresource.client.publishing import NoPlacementInTime, Publisher
    from openresource.client.services import Choice, Directory

    place = Home(home)
    key = key_of(place)
    publisher, _, name = service.rpartition("/")
    if publisher and publisher.lower() != key.address.lower():
        raise NotYourService(service=service, publisher=publisher, address=key.address)
    service = f"{key.address}/{name}"
    progress = Progress(quiet=as_json)
    async with chain_of(place, node_url) as chain:
        directory = Directory(chain)
        chosen = await directory.chosen(service)
        version = (
            (await directory.choose(f"{service}@{wanted}")).version
            if wanted
            else await directory.before(service)
        )
        if version is None:
            versions = await directory.versions(service)
            known = ", ".join(one.version for one in versions[-VERSIONS_SHOWN_MAX:])
            raise NothingToGoBackTo(service=name, version=chosen.version, known=known)
        choice = Choice(key.address, name, version)
        outcome: dict[str, Any] = {
            "service": service,
            "version": version.version,
            "program": version.program,
            "before": {"version": chosen.version, "program": chosen.program},
            "is_changed": version.program != chosen.program,
        }
        if dry_run:
            outcome["dry_run"] = True
            outcome["providers"] = len(await directory.placements(choice))
            return outcome
        acting = Publisher(chain, directory, key, progress=progress)
        if outcome["is_changed"]:
            outcome["tx_hash"] = await acting.choose(choice)
        try:
            placed = await acting.wait_running(choice, None, deadline_seconds=deadline_seconds)
        except NoPlacementInTime as late:
            raise NoPlacementInTime(
                **late.facts,
                remedy=f"It is chosen, and {chosen.version} serves where it runs until somebody runs this one. "
                "Run it yourself with «openresource provide --accept own», or roll back again to wait again.",
            ) from late
        await acting.wait_seen()
    progress.clear()
    outcome["placed"] = {
        "provider": placed.placement.provider,
        "endpoint": placed.placement.endpoint,
        "isolation": placed.placement.isolation,
    }
    return outcome


def _text(outcome: dict[str, Any]) -> str:
    version, before = outcome["version"], outcome["before"]["version"]
    if outcome.get("dry_run"):
        where = (
            f"{outcome['providers']} providers run it now" if outcome["providers"] else "nobody runs it now"
        )
        if not outcome["is_changed"]:
            return f"{outcome['service']} means {version} already; {where}."
        return f"{outcome['service']} would mean {version} instead of {before}; {where}. Nothing was changed."
    lines = [
        f"{outcome['service']} means {version} again, every call from now on; before it was {before}"
        if outcome["is_changed"]
        else f"{outcome['service']} means {version}, as before"
    ]
    placed = outcome["placed"]
    lines.append(f"  runs at {placed['endpoint']} (isolation {placed['isolation']})")
    if outcome["is_changed"]:
        lines.append(
            f"Go forth again:  openresource rollback {outcome['service'].rpartition('/')[2]} {before}"
        )
    return "\n".join(lines)
