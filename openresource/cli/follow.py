"""`node follow`: a second opinion on a chain of AI Network, block by block."""

import json
from pathlib import Path
from typing import Any

import click

from openresource.cli.output import home_option, json_option, note
from openresource.cli.session import run
from openresource.client.homes import Home
from openresource.client.node_wire import Wire
from openresource.primitives.errors import Refusal

ANSWER_SECONDS = 30.0
TOLD_EVERY_BLOCKS = 1_000


class NodeSource:
    """Blocks of a node by its JSON-RPC; nothing that it says is believed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def last_number(self) -> int:
        """The number of its last final block."""
        found = await self._wire.call("ain_getLastBlockNumber", {})
        if not isinstance(found, int):
            raise NotANode(url=self._wire.url)
        return found

    async def block(self, number: int) -> Any:
        """A block with its whole transactions."""
        return await self._wire.call("ain_getBlockByNumber", {"number": number, "getFullTransactions": True})

    async def proof_hash(self, path: str) -> str | None:
        """The proof hash of a path of its newest final state."""
        found = await self._wire.call("ain_getProofHash", {"ref": path, "is_final": True})
        return None if found is None else str(found)


class NotANode(Refusal):
    template = "{url} does not speak as a node of AI Network: it names no last block."
    way_out = "Name the address of a node, such as http://127.0.0.1:8081 (without /json-rpc)."


@click.command(
    epilog="""\b
Example:  openresource node follow --url https://mainnet-api.ainetwork.ai --network mainnet-prod
          openresource node follow --url http://127.0.0.1:8081 --network 3-nodes --until 100
\b
Exit codes: 0 everything verified up to --until or to the end (--once) · 1 a difference, told in detail · 3 the node is away"""
)
@click.option("--url", required=True, help="The node whose chain is verified.")
@click.option(
    "--network", "network_name", required=True, help="The network's configuration, such as mainnet-prod."
)
@click.option(
    "--genesis-hash",
    default="",
    help="What the first block's hash must be, where you know it from elsewhere.",
)
@click.option("--until", type=click.IntRange(0), help="Stop after this block.")
@click.option("--once", is_flag=True, help="Stop at what the node has now.")
@home_option
@json_option
def follow(
    url: str,
    network_name: str,
    genesis_hash: str,
    until: int | None,
    once: bool,
    home: str | None,
    as_json: bool,
) -> None:
    """Fetch every block, execute it again, and check every hash; stop at the first difference."""
    from openresource.node.ain.configurations import genesis_hash_of, network_of
    from openresource.node.ain.follower import Difference, Verified
    from openresource.node.ain.following import Following

    network = network_of(network_name)
    place = Home(home)
    folder: Path = place.folder / "followed"

    def told(verified: Verified) -> None:
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "block": verified.number,
                        "hash": verified.hash,
                        "state_proof_hash": verified.state_proof_hash,
                        "transactions": verified.transactions,
                        "votes": verified.votes,
                        "final": verified.final_number,
                    }
                )
            )
        elif verified.number % TOLD_EVERY_BLOCKS == 0:
            note(f"  block {verified.number} verified, final up to {verified.final_number}")

    async def following() -> None:
        wire = Wire(url.rstrip("/"), ANSWER_SECONDS, None)
        loop = Following(
            network,
            NodeSource(wire),
            url=url,
            folder=folder,
            genesis_hash=genesis_hash or genesis_hash_of(network_name),
            on_block=told,
        )
        try:
            follower = await loop.run(until=until, is_once=once)
        except Difference as difference:
            report = {**difference.facts, "url": url, "places": [_place(one) for one in loop.places]}
            report_file = folder / f"{network_name}-difference-{difference.facts['block']}.json"
            report_file.parent.mkdir(parents=True, exist_ok=True)
            report_file.write_text(json.dumps(report, indent=2) + "\n")
            if not as_json:
                for one in loop.places:
                    note(f"  {one.path}: expected {one.expected}, got {one.got}")
                note(f"The whole report is in {report_file}.")
            raise
        finally:
            await wire.close()
        since = "the first block" if loop.resumed_at is None else f"block {loop.resumed_at}"
        summary = (
            f"Verified from {since} to block {follower.number} of {network_name}: every state hash, receipt and vote.\n"
            f"  final up to block {follower.final_number}; genesis {follower.genesis_hash}"
        )
        if not as_json:
            click.echo(summary)

    run(following())


def _place(place: Any) -> dict[str, str]:
    return {"path": place.path, "expected": place.expected, "got": place.got}
