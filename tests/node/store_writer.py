"""The process that the kill test kills: it stores block after block and confirms each on its standard output."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from openresource.node.store import BlockBatch, Store


def transaction_hash_of(height: int) -> bytes:
    """The hash of the only transaction of a block."""
    return hashlib.sha256(b"transaction %d" % height).digest()


def root_hash_of(store: Store, height: int) -> str | None:
    """The root hash as the block tells it."""
    block = store.block(height)
    return None if block is None else block.decode().rstrip(".")


def main() -> None:
    """Store blocks until somebody ends it."""
    with Store.open(Path(sys.argv[1])) as store:
        tree = store.tree("canonical", cached_nodes_max=100)
        while True:
            height = store.height + 1
            for number in range(40):
                tree.write(["values", "accounts", f"0x{height * number % 997:040x}", "balance"], height)
            tree.write(["values", "height"], height)
            root_hash = tree.root_hash()
            nodes = tree.collect_changes()
            store.append(
                BlockBatch(
                    height=height,
                    block_hash=hashlib.sha256(b"block %d" % height).digest(),
                    block=f"{root_hash}{'.' * 20_000}".encode(),
                    nodes=nodes,
                    root_number=tree.root_number,
                    transactions=[(transaction_hash_of(height), b"receipt")],
                    events=[b"%d" % height] * 3,
                )
            )
            tree.rebase()
            sys.stdout.write(f"{height}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
