"""Giving a service up for good, and making one's own of somebody else's, with its lineage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openresource.cli.session import chain_of, key_of
from openresource.client.homes import Home
from openresource.primitives.amounts import text_from_uain
from openresource.primitives.errors import Refusal


class NotYours(Refusal):
    template = "{service} is a service of {publisher}; this home's wallet is {address}."
    way_out = "Name a service of your own, or choose the wallet with --home."


async def renounce_service(
    service: str, place: Home, node_url: str | None, *, dry_run: bool
) -> dict[str, Any]:
    """Gives a service up; says before and after what stays as it is for ever."""
    from openresource.client.chain import set_value
    from openresource.client.services import Directory
    from openresource.market.services import permissions_record, read_permissions

    key = key_of(place)
    publisher, _, name = service.rpartition("/")
    if publisher and publisher.lower() != key.address.lower():
        raise NotYours(service=service, publisher=publisher, address=key.address)
    full = f"{key.address}/{name}"
    async with chain_of(place, node_url) as chain:
        chosen = await Directory(chain).chosen(full)
        permissions = read_permissions(await chain.read(f"/services/{full}/permissions"))
        outcome: dict[str, Any] = {
            "service": full,
            "version": chosen.version,
            "program": chosen.program,
            "royalty_uain": chosen.royalty_uain,
            "price_cap_uain": chosen.price_cap_uain,
            "permissions": permissions_record(permissions),
            "dry_run": dry_run,
        }
        if not dry_run:
            operation = set_value(f"/services/{full}/renounced", {"program": chosen.program})
            outcome["tx_hash"] = (await chain.submit_final(operation, key)).tx_hash
    return outcome


def renounced_text(outcome: dict[str, Any]) -> str:
    """What was given up, for people."""
    who = "everybody may call and run it"
    if outcome["permissions"]:
        who = f"its permissions stay as they are: {outcome['permissions']}"
    stays = (
        f"{outcome['service']} {'would mean' if outcome['dry_run'] else 'means'} {outcome['version']} for ever, with a "
        f"royalty of {text_from_uain(outcome['royalty_uain'])} AIN a call to its publisher; {who}."
    )
    if outcome["dry_run"]:
        return f"{stays}\nNothing was changed. To do it:  openresource program renounce {outcome['service']} --for-good"
    return f"{stays}\nNobody owns it any more; only a vote of the stake can stop it."


async def fork_service(
    service: str,
    name: str,
    folder: str,
    place: Home,
    node_url: str | None,
    progress: Callable[[str], None],
    deadline_seconds: float,
    *,
    is_published: bool,
    dry_run: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Fetches the exact release of a service into a folder and publishes it under a name of one's own."""
    from openresource.cli.publication import Publication
    from openresource.client.forks import fetch_fork, lineage_of
    from openresource.client.services import Directory
    from openresource.market.services import require_service_name

    require_service_name(name)
    into = Path(folder)
    async with chain_of(place, node_url) as chain:
        choice = await Directory(chain).choose(service)
        outcome: dict[str, Any] = {
            "fork_of": {
                "service": choice.service,
                "version": choice.version.version,
                "program": choice.program,
                "license": choice.version.license,
            },
            "lineage": [
                f"{one.source.publisher}/{one.source.name}" for one in await lineage_of(chain, choice.version)
            ],
            "name": name,
            "folder": str(into.resolve()),
            "dry_run": dry_run,
        }
        if dry_run:
            return outcome
        progress(f"fetching {choice.service} {choice.version.version}")
        await fetch_fork(chain, choice, name, into)
    if is_published:
        publication = Publication(place, node_url, progress, deadline_seconds, quiet=quiet)
        outcome["publication"] = await publication.publish(into)
    return outcome


def fork_text(outcome: dict[str, Any]) -> str:
    """What came of a fork, for people."""
    source = outcome["fork_of"]
    said = f"{source['service']} {source['version']} ({source['program']}, license {source['license']})"
    if outcome["dry_run"]:
        return f"Would fetch {said} into {outcome['folder']} and publish it as {outcome['name']}."
    lines = [f"Fetched {said} into {outcome['folder']}"]
    if "publication" in outcome:
        from openresource.cli.publish import publication_text

        lines.append(publication_text(outcome["publication"]))
        lines.append(f"Change it, raise its version, and:  openresource publish {outcome['folder']}")
    else:
        lines.append(f"Change it, then:  openresource publish {outcome['folder']}")
    return "\n".join(lines)
