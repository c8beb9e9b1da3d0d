"""The node's part of a home: the chain, the content, the genesis document and the keys that the node made.

`funding.json` pays everybody's first money on a local network; it and the other key files are for their owner only.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN
from openresource.node.announcements import block_event, decoded_block, event_bytes
from openresource.node.rpc import encode
from openresource.node.store import BlockBatch, Store
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey, generate_key, private_key_from_hex
from openresource.protocol import CHAIN_IDS

DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
# Sixty parts of a hundred are for the public, the rest is reserved for those who build the chain.
PUBLIC_UAIN = TOTAL_SUPPLY_UAIN // 100 * 60
RESERVED_UAIN = TOTAL_SUPPLY_UAIN - PUBLIC_UAIN


class UnknownNetwork(Refusal):
    template = "There is no network {network}; there are {networks}."
    way_out = "Name one of them with --network."


class OtherNetworkAtHome(Refusal):
    template = "{home} holds the chain of the network {found}, not of {wanted}."
    way_out = "Choose another home with --home, or name that network with --network."


class NoGenesisHere(Refusal):
    template = "{home} holds no chain yet, and {network} is not a network that a node can begin by itself."
    way_out = "Put the network's genesis.json into {home}, with the key of its producer beside it."


class HomeUnreadable(Refusal):
    template = "{file} cannot be used: {reason}."
    way_out = "Restore it from your copy, or begin with an empty home."


class NodeHome:
    """One node's files."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "node"
        self.chain = self.folder / "chain"
        self.content = self.folder / "content"
        self.genesis_file = self.folder / "genesis.json"
        self.funding_file = self.folder / "funding.json"
        self.reserved_file = self.folder / "reserved.json"
        self.producer_file = self.folder / "producer.json"

    def ensure(self) -> None:
        """Make the folder, readable by its owner only."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeUnreadable(file=str(self.folder), reason=error.strerror or str(error)) from error

    def genesis(self, network: str, now_ms: int) -> dict[str, Any]:
        """The genesis document; at the first start of a local network it is made, with its keys."""
        if network not in CHAIN_IDS:
            raise UnknownNetwork(network=network, networks=", ".join(CHAIN_IDS))
        if self.genesis_file.exists():
            document = _read(self.genesis_file)
            if document.get("network") != network:
                raise OtherNetworkAtHome(home=str(self.folder), found=document.get("network"), wanted=network)
            return document
        if network != "local":
            raise NoGenesisHere(home=str(self.folder), network=network)
        document = {
            "network": network,
            "chain_id": CHAIN_IDS[network],
            "timestamp_ms": now_ms,
            "producer": self.key(self.producer_file, "producer").address,
            "accounts": {
                self.key(self.funding_file, "public").address: PUBLIC_UAIN,
                self.key(self.reserved_file, "reserved").address: RESERVED_UAIN,
            },
        }
        # The keys lie on the disk before the document that names them.
        _write_whole(self.genesis_file, document, 0o644)
        return document

    def key(self, file: Path, name: str) -> PrivateKey:
        """A key of this home, made at the first use."""
        if file.exists():
            try:
                return private_key_from_hex(str(_read(file)["private_key"]))
            except (KeyError, Refusal) as error:
                raise HomeUnreadable(file=str(file), reason="it holds no private key") from error
        key = generate_key(secrets.token_bytes(32))
        record = {"name": name, "address": key.address, "private_key": key.to_bytes().hex()}
        _write_whole(file, record, 0o600)
        return key

    def funding_key(self) -> PrivateKey:
        """The key whose ordinary transfers give accounts of a local network their first money."""
        if not self.funding_file.exists():
            raise HomeUnreadable(file=str(self.funding_file), reason="it does not exist")
        return self.key(self.funding_file, "public")


def store_first_block(store: Store, block: Mapping[str, Any], tree: Any) -> None:
    """Block 0 with its state, as the beginning of an empty store."""
    records = tree.collect_changes()
    event = block_event(0, block["hash"], 0, block["timestamp"], 0)
    store.append(
        BlockBatch(
            height=0,
            block_hash=bytes.fromhex(block["hash"][2:]),
            block=encode(block),
            nodes=records,
            root_number=tree.root_number,
            events=[event_bytes(event)],
        )
    )


def blocks_from(store: Store, from_ms: int) -> list[dict[str, Any]]:
    """The last blocks, oldest first, that are not older than a time."""
    blocks: list[dict[str, Any]] = []
    height = store.height
    while height > 0:
        raw = store.block(height)
        assert raw is not None, "every block up to the last one is in the store"
        block = decoded_block(raw)
        if block["timestamp"] < from_ms:
            break
        blocks.append(block)
        height -= 1
    blocks.reverse()
    return blocks


def _read(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            document = parse_json(opened.read(DOCUMENT_BYTES_MAX))
    except (OSError, Refusal) as error:
        raise HomeUnreadable(file=str(file), reason=str(error)) from error
    if not isinstance(document, dict):
        raise HomeUnreadable(file=str(file), reason="it is not an object")
    return document


def _write_whole(file: Path, document: Mapping[str, Any], mode: int) -> None:
    """Written and synced beside its place, then moved there: it is whole or not there."""
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump(document, opened, indent=2)
            opened.write("\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
