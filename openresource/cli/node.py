"""`node start` and `node status`: keep and serve the chain, and ask how it stands."""

import json
import os
from datetime import UTC, datetime

import click

from openresource.cli.follow import follow
from openresource.cli.output import home_option, json_option, network_node_option, note, show
from openresource.cli.session import chain_of, run
from openresource.client.homes import Home

STATUS_SECONDS = 3.0


@click.group(epilog="\b\nExample:  openresource node start --home ./my-node --port 8080")
def node() -> None:
    """Keep and serve the chain."""


@node.command(
    epilog="""\b
Example:  openresource node start --home ./my-node --port 8080
          openresource node start --host 0.0.0.0        (reachable from other machines)
          PORT=8081 P2P_PORT=5001 UNSAFE_PRIVATE_KEY=… openresource node start --ain-environment
\b
Exit codes: 0 stopped by Ctrl-C or SIGTERM · 1 refused (port or home in use) · 2 wrong usage"""
)
@click.option("--network", default="local", show_default=True, help="The network whose chain is kept.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free port."
)
@click.option("--host", help="Address to listen on. Default: this machine only.")
@click.option(
    "--ain-environment",
    "is_ain",
    is_flag=True,
    help="Be a node of AI Network: take everything from its environment variables, keep data below this directory.",
)
@home_option
@json_option
def start(network: str, port: int, host: str | None, is_ain: bool, home: str | None, as_json: bool) -> None:
    """Serve until Ctrl-C or SIGTERM; logs go to standard error as JSON lines."""
    from openresource.node.logs import log_to
    from openresource.node.service import NodeService

    if is_ain:
        _start_from_environment(as_json)
        return

    place = Home(home)
    place.ensure()
    log_to()

    def ready(service: NodeService) -> None:
        facts = {
            "ready": True,
            "url": service.url,
            "port": service.port,
            "network": network,
            "genesis_hash": service.genesis_hash,
            "home": str(place.folder),
        }
        if as_json:
            click.echo(json.dumps(facts))
        else:
            note(
                f"The network {network} is served at {service.url} (Ctrl-C ends it).\n"
                f"  genesis {service.genesis_hash}\n  kept in {service.home.folder}"
            )

    NodeService(place.folder, network, port=port, host=host, on_ready=ready).run()


def _start_from_environment(as_json: bool) -> None:
    """A node that stands where AI Network's own node stands."""
    from openresource.node.ain.engine import AinNode
    from openresource.node.ain.settings import AinSettings
    from openresource.node.logs import log_to

    settings = AinSettings.from_environment(os.environ)
    log_to()

    def ready(served: AinNode) -> None:
        facts = {
            "ready": True,
            "url": served.urls()["clientApi"]["url"],
            "port": settings.port,
            "p2p_port": settings.p2p_port,
            "network": settings.network.name,
            "genesis_hash": served.genesis_hash(),
            "address": None if served.key is None else served.key.address,
            "data": str(settings.chain_directory),
        }
        if as_json:
            click.echo(json.dumps(facts))
        else:
            note(
                f"AI Network's {facts['network']} is served at {facts['url']} (Ctrl-C ends it).\n"
                f"  genesis {facts['genesis_hash']}\n  kept in {facts['data']}"
            )

    AinNode(settings).run(ready)


@node.command(
    epilog="""\b
Example:  openresource node status --node http://127.0.0.1:8080
\b
Exit codes: 0 it answers · 1 it serves another network · 3 it is away"""
)
@home_option
@network_node_option
@json_option
def status(home: str | None, node_url: str | None, as_json: bool) -> None:
    """Ask a node which network it serves, and how far it is."""

    async def asking() -> tuple[str, dict[str, object]]:
        async with chain_of(Home(home), node_url, timeout_seconds=STATUS_SECONDS) as chain:
            found = await chain.status()
            return chain.url, {
                "network": found.network,
                "chain_id": found.chain_id,
                "genesis_hash": found.genesis_hash,
                "profile": found.profile,
                "height": found.height,
                "time_ms": found.time_ms,
                "version": found.version,
                **found.more,
            }

    url, facts = run(asking())

    def text() -> str:
        moment = datetime.fromtimestamp(int(str(facts["time_ms"])) / 1000, UTC)
        return (
            f"{url} serves {facts['network']} (chain {facts['chain_id']}, profile {facts['profile']}), "
            f"version {facts['version']}\n"
            f"  block {facts['height']}, of {moment:%Y-%m-%d %H:%M:%S} UTC; {facts.get('pending', 0)} transactions pending\n"
            f"  genesis {facts['genesis_hash']}"
            + (
                "\n  Its disk is full: nothing becomes final until there is room."
                if facts.get("disk_full")
                else ""
            )
        )

    show({"url": url, **facts}, as_json=as_json, text=text)


node.add_command(follow)
