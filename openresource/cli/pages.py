"""`pages`: the marketplace, the explorer and the money of this home, in a browser on this machine."""

import json
import os
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from openresource.cli.output import home_option, json_option, network_node_option, note
from openresource.cli.session import run
from openresource.client.homes import Home
from openresource.primitives.errors import Refusal

TOKEN_VARIABLE: Final = "OPENRESOURCE_PAGES_TOKEN"
TOKEN_CHARACTERS_MIN: Final = 20


class TokenTooShort(Refusal):
    template = "The token in {variable} has fewer than {characters_min} characters."
    way_out = "Choose a longer one, or leave it away: a random one is made."


@click.command(
    epilog="""\b
Example:  openresource pages
          openresource pages --port 8081 --provider-home ./my-provider
\b
Exit codes: 0 stopped by Ctrl-C or SIGTERM · 1 refused (port in use) · 2 wrong usage"""
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0 takes any free port."
)
@click.option("--host", help="Address to listen on. Default: this machine only; whoever has the link spends.")
@click.option(
    "--provider-home",
    "provider_homes",
    type=click.Path(file_okay=False),
    multiple=True,
    help="Home of a provider on this machine, for the page of earnings. Default: this home.",
)
@home_option
@network_node_option
@json_option
def pages(
    port: int,
    host: str | None,
    provider_homes: tuple[str, ...],
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Serve the pages until Ctrl-C. The link that is printed carries a token: only with it can a browser spend.

    The wallet stays on this machine and pays within its limits. The pages wait for a node that is away.
    """
    run(_serve(port, host, provider_homes, Home(home), node_url, as_json))


async def _serve(
    port: int,
    host: str | None,
    provider_homes: tuple[str, ...],
    home: Home,
    node_url: str | None,
    as_json: bool,
) -> None:
    from openresource.cli.servers import bound_socket, serve
    from openresource.web.app import make_app
    from openresource.web.security import LOOPBACK_NAMES

    token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise TokenTooShort(variable=TOKEN_VARIABLE, characters_min=TOKEN_CHARACTERS_MIN)
    listener = bound_socket(host or "127.0.0.1", port)
    with listener:
        listening = listener.getsockname()[1]
        app = make_app(
            home,
            node_url,
            token=token,
            provider_homes=[Path(one) for one in provider_homes] or [home.folder],
            host_names=LOOPBACK_NAMES if host is None else None,
        )

        def ready() -> None:
            link = f"http://127.0.0.1:{listening}/?token={quote(token)}"
            facts = {"ready": True, "url": link, "port": listening, "node": app.site.node_url}
            if as_json:
                click.echo(json.dumps(facts))
            else:
                note(
                    f"The pages are at {link}\n  That link spends from the wallet in {home.folder}: keep it to yourself. Ctrl-C ends it."
                )

        try:
            await serve(app, listener, ready, on_stop=app.site.feed.end)
        finally:
            await app.close()
