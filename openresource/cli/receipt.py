"""`receipt`: what a call cost with the calls below it, from this home's books, each paper checked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from openresource.cli.output import home_option, json_option, network_node_option, show
from openresource.cli.session import client_of, run
from openresource.primitives.amounts import text_from_uain

SHOWN_MAX: Final = 20


@click.command(
    epilog="""\b
Example:  openresource receipt
          openresource receipt 0x3f…c1
          openresource receipt --disputed --json
\b
Exit codes: 0 shown · 1 not in these books, or a paper below it is missing or wrong · 2 wrong usage · 3 node away"""
)
@click.argument("receipt_id", metavar="[ID]", required=False)
@click.option("--disputed", is_flag=True, help="Receipts that were refused, kept as evidence.")
@home_option
@network_node_option
@json_option
def receipt(
    receipt_id: str | None, disputed: bool, home: str | None, node_url: str | None, as_json: bool
) -> None:
    """Show the receipt ID with those of the calls that its program made, and what all of it cost; or the newest ones.

    Every signature and every sum is checked here; nobody is asked.
    """

    async def looking() -> Any:
        async with client_of(home, node_url) as client:
            if disputed:
                return {"disputed": client.books.disputed()}
            if receipt_id is None:
                return {"receipts": [_short(one) for one in client.books.receipts(SHOWN_MAX)]}
            return (await client.receipt_tree(receipt_id)).to_json()

    record = run(looking())
    show(record, as_json=as_json, text=lambda: _text(record))


def _short(receipt: dict[str, Any]) -> dict[str, Any]:
    inner_uain = receipt.get("inner_uain", 0)
    return {
        "receipt": receipt["id"],
        "service": receipt["service"],
        "provider": receipt["provider"],
        "price_uain": receipt["price_uain"],
        "total_uain": receipt["price_uain"] + inner_uain,
        "finished_at_ms": receipt["finished_at_ms"],
    }


def _text(record: dict[str, Any]) -> str:
    if "disputed" in record:
        lines = [
            f"{_moment(one['at_ms'])}  {one['receipt'].get('id', '')}  {one['reason']}"
            for one in record["disputed"]
        ]
        return "\n".join(lines) or "No receipt was refused."
    if "receipts" in record:
        lines = [
            f"{_moment(one['finished_at_ms'])}  {text_from_uain(one['total_uain'])} AIN  {one['service']}  {one['receipt']}"
            for one in record["receipts"]
        ]
        return "\n".join(lines) or "This home has paid for no call yet."
    return "\n".join(
        (*_branch(record, ""), f"{text_from_uain(record['total_uain'])} AIN in all; every paper fits.")
    )


def _branch(record: dict[str, Any], indent: str) -> list[str]:
    line = (
        f"{indent}{text_from_uain(record['price_uain'])} AIN for {record['service']} to {record['provider']}"
    )
    lines = [f"{line}, receipt {record['receipt']}"]
    for child in record["children"]:
        lines += _branch(child, indent + "  ")
    return lines


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
