"""`read`, `write`, `watch`: the tree of the chain from the command line."""

import json
from typing import Any

import click

from openresource.cli.output import (
    dry_run_option,
    home_option,
    json_option,
    json_text,
    network_node_option,
    note,
    show,
)
from openresource.cli.session import chain_of, key_of, run
from openresource.client.chain import Operation
from openresource.client.homes import Home
from openresource.primitives.errors import InvalidInput

TREES = ("values", "rules", "functions", "owners")


def parse_at(text: str) -> Any:
    """`pending`, `final` or a height."""
    if text in ("pending", "final"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise InvalidInput(
        f"{text!r} is not a moment of the chain.", remedy="Say pending, final, or a block's height."
    )


def parse_json_argument(text: str) -> Any:
    """A JSON text from the command line; a bare word is taken as a text."""
    try:
        return json.loads(text)
    except ValueError:
        if (text and text[0] in '{["') or text in ("", "NaN", "Infinity", "-Infinity"):
            raise InvalidInput(
                f"{text!r} is not JSON.",
                remedy="""Quote it for the shell, for instance '{"a": 1}' or '"text"'.""",
            ) from None
        return text


@click.command(
    epilog="\b\nExample:  openresource read /services --at final\n          openresource read /apps/my_app/score --proof > score.proof"
)
@click.argument("path")
@click.option("--at", default="final", show_default=True, help="pending, final, or a height.")
@click.option("--tree", type=click.Choice(TREES), default="values", show_default=True)
@click.option("--proof", is_flag=True, help="Print the value with a proof that verify-proof checks.")
@home_option
@network_node_option
@json_option
def read(
    path: str, at: str, tree: str, proof: bool, home: str | None, node_url: str | None, as_json: bool
) -> None:
    """Read the value at PATH."""
    moment = parse_at(at)

    async def reading() -> Any:
        async with chain_of(Home(home), node_url) as chain:
            return await chain.read_at(path, moment, tree=tree, proof=proof)

    found = run(reading())
    if proof:
        show(found.paper, as_json=True, text="")
        return
    record = {"path": path, "tree": tree, "at": found.at, "height": found.height, "value": found.value}
    show(record, as_json=as_json, text=lambda: json_text(found.value, indent=2))


@click.command(
    epilog="""\b
Example:  openresource write /apps/my_app/score '{"ann": 3}'
          openresource write --rule /apps/my_app/score '{".rule": {"write": "auth.addr === \\'0xAb…\\'"}}'"""
)
@click.argument("path")
@click.argument("value")
@click.option("--rule", "kind", flag_value="SET_RULE", help="Write a rule.")
@click.option("--function", "kind", flag_value="SET_FUNCTION", help="Write a function entry.")
@click.option("--owner", "kind", flag_value="SET_OWNER", help="Write an owner entry.")
@home_option
@network_node_option
@dry_run_option
@json_option
def write(
    path: str,
    value: str,
    kind: str | None,
    home: str | None,
    node_url: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write VALUE (JSON; null deletes) at PATH; ends when it is final."""
    operation = Operation(kind or "SET_VALUE", path, parse_json_argument(value))
    place = Home(home)

    async def writing() -> dict[str, Any]:
        async with chain_of(place, node_url) as chain:
            key = key_of(place)
            if dry_run:
                transaction = await chain.sign(operation, key)
                result = await chain.rpc("ain_sendSignedTransactionDryrun", transaction)
                return {"operation": operation.to_json(), "dry_run": True, "result": result.get("result")}
            info = await chain.submit_final(operation, key)
            return {"operation": operation.to_json(), "tx_hash": info.tx_hash, "height": info.height}

    outcome = run(writing())

    def text() -> str:
        if dry_run:
            return f"Tried, not written: {json.dumps(outcome['result'])}"
        return f"Written at {path} in block {outcome['height']}.\n{outcome['tx_hash']}"

    show(outcome, as_json=as_json, text=text)


@click.command(epilog="\b\nExample:  openresource watch /apps/my_app --pending")
@click.argument("path")
@click.option("--since", help="A cursor (height:index) to begin at; default: now.")
@click.option("--pending", is_flag=True, help="Also show writes that are not final yet.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many events.")
@home_option
@network_node_option
@json_option
def watch(
    path: str,
    since: str | None,
    pending: bool,
    count: int | None,
    home: str | None,
    node_url: str | None,
    as_json: bool,
) -> None:
    """Print what is written at or below PATH, as it happens, until Ctrl-C."""

    async def watching() -> None:
        async with chain_of(Home(home), node_url) as chain:
            status = await chain.status()
            note(f"Watching {path} on {status.network} from block {status.height}. Ctrl-C ends it.")
            seen = 0
            async for event in chain.events(path, since=since, pending=pending):
                record = {
                    "cursor": event.cursor,
                    "kind": event.kind,
                    "path": event.path,
                    "value": event.value,
                    "by": event.by,
                    "tx_hash": event.tx_hash,
                    "height": event.height,
                    "final": event.is_final,
                }
                state = "final" if event.is_final else "pending"
                show(
                    record,
                    as_json=as_json,
                    text=f"{event.height:>7} {state:<7} {event.path} = {json_text(event.value)}",
                )
                seen += 1
                if count is not None and seen >= count:
                    return

    run(watching())
