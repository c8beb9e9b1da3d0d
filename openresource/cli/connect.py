"""`connect`: a plain localhost address for curl and stock clients, paid by this home's wallet."""

import json
import logging
from typing import Any

import click

from openresource.cli.output import home_option, insist_option, json_option, network_node_option, note
from openresource.cli.session import client_of, run
from openresource.market.allowances import DEPTH_DEFAULT, DEPTH_MAX, Allowance, checked_allowance
from openresource.primitives.amounts import text_from_uain, uain_from_text


@click.command(
    epilog="""\b
Example:  openresource connect --port 8082 --limit 0.5
          curl http://127.0.0.1:8082/sentiment -d '{"text": "I like it"}'
          OPENAI_BASE_URL=http://127.0.0.1:8082/v1 OPENAI_API_KEY=none python my_script.py
\b
Exit codes: 0 stopped by Ctrl-C or SIGTERM · 1 refused (port in use, no wallet) · 2 wrong usage · 3 node away"""
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8082, show_default=True, help="0 takes any free port."
)
@click.option("--limit", default="1", show_default=True, help="The most that this run may spend, in AIN.")
@click.option("--allow", metavar="AIN", help="What the program of each call may spend on calls of others.")
@click.option(
    "--depth",
    type=click.IntRange(0, DEPTH_MAX),
    default=DEPTH_DEFAULT,
    show_default=True,
    help="How many calls below each other that reaches.",
)
@click.option(
    "--allow-service",
    "allowed",
    multiple=True,
    metavar="SERVICE",
    help="A service that it may be spent on; none named: any that is open to everyone.",
)
@click.option("--host", help="Address to listen on. Default: this machine only; whoever reaches it spends.")
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    help="Serve gRPC as well, in plaintext at this port; 0 takes any free one.",
)
@click.option(
    "--origin", "origins", multiple=True, help="A page's origin that may call, such as http://127.0.0.1:3000."
)
@insist_option
@home_option
@network_node_option
@json_option
def connect(
    port: int,
    limit: str,
    allow: str | None,
    depth: int,
    allowed: tuple[str, ...],
    host: str | None,
    grpc_port: int | None,
    origins: tuple[str, ...],
    insist: bool,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Serve all services on a plain HTTP address of this machine; the wallet pays, within your limits."""
    limit_uain = uain_from_text(limit)
    inner = None if allow is None else checked_allowance(uain_from_text(allow), depth, allowed)
    run(_serve(port, limit_uain, inner, host, grpc_port, origins, insist, home, node_url, as_json))


async def _serve(
    port: int,
    limit_uain: int,
    inner: Allowance | None,
    host: str | None,
    grpc_port: int | None,
    origins: tuple[str, ...],
    insists: bool,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    from openresource.cli.servers import bound_socket, serve
    from openresource.client.calls import Answer
    from openresource.client.connect import LOOPBACK_NAMES, Connect
    from openresource.node.logs import log_to

    log_to(level=logging.WARNING)
    listener = bound_socket(host or "127.0.0.1", port)
    with listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with client_of(home, node_url) as client:
            address = client.key().address
            await client.network()

            def called(answer: Answer) -> None:
                if as_json:
                    facts = {
                        "service": answer.service,
                        "price_uain": answer.price_uain,
                        "total_uain": answer.total_uain,
                        "receipt_id": answer.receipt_id,
                    }
                    click.echo(json.dumps({"call": facts}))
                else:
                    note(
                        f"  {answer.service.rpartition('/')[2]}: {answer.total} AIN to {answer.provider}"
                        f"{' and others' if answer.inner else ''}, "
                        f"{answer.milliseconds:.0f} ms, receipt {answer.receipt_id[:18]}…"
                    )

            def ready() -> None:
                if as_json:
                    facts = {"ready": True, "url": url, "address": address, "limit_uain": limit_uain}
                    click.echo(json.dumps({**facts, "grpc": grpc_address} if door is not None else facts))
                    return
                note(
                    f"Services are at {url} (Ctrl-C ends it). The wallet {address} pays, at most "
                    f"{text_from_uain(limit_uain)} AIN in this run.\n"
                    f"  curl {url}/                       lists them\n"
                    f"  OPENAI_BASE_URL={url}/v1   for stock OpenAI clients"
                    + (f"\n  {grpc_address}              for gRPC clients" if door is not None else "")
                )

            names = LOOPBACK_NAMES if host is None else None
            application = Connect(
                client,
                limit_uain=limit_uain,
                origins=origins,
                names=names,
                insists=insists,
                inner=inner,
                on_call=called,
            )
            door: Any = None
            grpc_address = ""
            if grpc_port is not None:
                door = _grpc_door(application, client)
                grpc_address = f"127.0.0.1:{await door.start(host or '127.0.0.1', grpc_port)}"
            try:
                await serve(application, listener, ready)
            finally:
                if door is not None:
                    await door.stop()


def _grpc_door(application: Any, client: Any) -> Any:
    from openresource.adapters.grpc.extras import require_grpc

    require_grpc()
    from openresource.adapters.grpc.purse_door import PurseDoor

    return PurseDoor(application, client)
