"""`verify-proof`: check a saved proof, trusting nothing but a genesis hash."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from openresource.cli.output import home_option, json_option, note, show
from openresource.client.homes import Home
from openresource.primitives.errors import InvalidInput


@click.command(
    epilog="""\b
Example:  openresource read /services --proof > services.proof
          openresource verify-proof services.proof --genesis 0x3f…c1
\b
Exit codes: 0 proven · 1 the file proves nothing · 2 wrong usage"""
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--genesis", help="The genesis hash that you trust. Default: the one in the home's config.toml."
)
@home_option
@json_option
def verify_proof(file: str, genesis: str | None, home: str | None, as_json: bool) -> None:
    """Check value, hashes, block, the producer's signature and genesis of the proof in FILE (- is standard input)."""
    from openresource.client.proofs import PAPER_BYTES_MAX, parse_paper, verify_state_proof

    trusted = genesis or _configured_genesis(home)
    if file == "-":
        raw = sys.stdin.buffer.read(PAPER_BYTES_MAX + 1)
    else:
        with Path(file).open("rb") as opened:
            raw = opened.read(PAPER_BYTES_MAX + 1)
    paper = parse_paper(raw)
    proven = verify_state_proof(paper, str(paper.get("genesis_hash")) if trusted is None else trusted)
    if trusted is None:
        # A paper is always true about its own genesis; only the reader can say whether that one counts.
        raise InvalidInput(
            f"The proof is whole, but it names its own genesis ({proven.genesis_hash}), and nobody vouches for that one.",
            remedy=f"Compare it with the genesis of your network, then: openresource verify-proof {file} --genesis {proven.genesis_hash}",
        )
    record = {
        "proven": True,
        "path": proven.path,
        "value": proven.value,
        "height": proven.height,
        "time_ms": proven.time_ms,
        "block_hash": proven.block_hash,
        "producer": proven.producer,
        "genesis_hash": proven.genesis_hash,
    }

    def text() -> str:
        moment = datetime.fromtimestamp(proven.time_ms / 1000, UTC)
        return (
            f"Proven: {proven.path} = {json.dumps(proven.value, ensure_ascii=False)}\n"
            f"  after block {proven.height} ({moment:%Y-%m-%d %H:%M:%S} UTC), signed by {proven.producer}\n"
            f"  of the network with genesis {proven.genesis_hash}"
        )

    show(record, as_json=as_json, text=text)
    if not as_json:
        note("Trusted for this: the genesis hash alone.")


def _configured_genesis(home: str | None) -> str | None:
    found = Home(home).config().get("genesis_hash")
    return found if isinstance(found, str) else None
