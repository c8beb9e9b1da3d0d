"""`app create`: a place in the tree with rules, owners and functions of one's own."""

import os

import click

from openresource.cli.output import dry_run_option, home_option, json_option, network_node_option, show
from openresource.cli.session import chain_of, key_of, run
from openresource.client.homes import Home


@click.group(epilog="\b\nExample:  openresource app create my_app")
def app() -> None:
    """Create an app: a place in the tree with rules of your own."""


@app.command(epilog="\b\nExample:  openresource app create my_app --public")
@click.argument("name")
@click.option("--public", is_flag=True, help="Let everybody write below /apps/NAME.")
@home_option
@network_node_option
@dry_run_option
@json_option
def create(
    name: str, public: bool, home: str | None, node_url: str | None, dry_run: bool, as_json: bool
) -> None:
    """Create the app NAME; its values live below /apps/NAME and you are its admin."""
    place = Home(home)

    async def creating() -> dict[str, object]:
        async with chain_of(place, node_url) as chain:
            key = key_of(place)
            settings: dict[str, object] = {"admin": {key.address: True}}
            if public:
                settings["is_public"] = True
            path = f"/manage_app/{name}/create/{os.urandom(16).hex()}"
            if dry_run:
                return {"app": name, "path": path, "value": settings, "dry_run": True}
            tx_hash = await chain.write(path, settings, key)
            return {"app": name, "path": f"/apps/{name}", "admin": key.address, "tx_hash": tx_hash}

    outcome = run(creating())
    said = "Would create" if dry_run else "Created"
    show(outcome, as_json=as_json, text=f"{said} the app {name}: write below /apps/{name}.")
