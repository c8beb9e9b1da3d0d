"""An engine, and a whole node around it, over the simple machine: for tests of everything that is not the ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from openresource.client.chain import Chain
from openresource.ledger.profile import Network, Profile
from openresource.ledger.transactions import Transaction, sign_transaction
from openresource.node.announcements import decoded_block
from openresource.node.content import ContentStore
from openresource.node.door import LOCAL_NAMES, Door
from openresource.node.engine import Engine
from openresource.node.metrics import Metrics
from openresource.node.rpc import encode
from openresource.node.server import Server
from openresource.node.store import BlockBatch, Store
from openresource.primitives.keys import PrivateKey, generate_key
from tests.node.simple_machine import SimpleMachine, first_block

CHAIN_ID = 100
PRODUCER = generate_key(b"producer of the tests' blocks....")
ALICE = generate_key(b"alice, who writes in the tests...")

# The simple machine has none of the habits that profiles differ in; only the names are shown.
_HABITS: dict[str, Any] = {
    habit.name: False if habit.type in ("bool", bool) else 0 for habit in fields(Profile)
} | {"name": "openresource", "tree_shape": "canonical"}
NETWORK = Network(name="local", profile=Profile(**_HABITS), chain_id=CHAIN_ID, parameters={})


def wall_clock_ms() -> int:
    return int(time.time() * 1000)


def make_engine(
    folder: Path, clock_ms: Callable[[], int] = wall_clock_ms, store: Store | None = None
) -> Engine:
    """An engine on the chain in a folder, which begins there if the folder is empty."""
    store = Store.open(folder) if store is None else store
    tree = store.tree("canonical")
    if store.height < 0:
        tree.write(["values", "genesis"], True)
        block = first_block(PRODUCER.address)
        records = tree.collect_changes()
        store.append(
            BlockBatch(0, bytes.fromhex(block["hash"][2:]), encode(block), records, tree.root_number)
        )
    raw_tip, raw_first = store.block(store.height), store.block(0)
    assert raw_tip is not None and raw_first is not None
    machine: Any = SimpleMachine(NETWORK, tree, decoded_block(raw_tip), decoded_block(raw_first)["hash"])
    return Engine(
        machine=machine, tree=tree, store=store, producer=PRODUCER, clock_ms=clock_ms, metrics=Metrics()
    )


_timestamps = iter(range(1, 10**9))


def write(path: str, value: Any, key: PrivateKey = ALICE, nonce: int = -1) -> Transaction:
    """A signed transaction that writes one value."""
    operation = {"type": "SET_VALUE", "ref": path, "value": value}
    body = {
        "operation": operation,
        "nonce": nonce,
        "timestamp": wall_clock_ms() + next(_timestamps),
        "gas_price": 0,
    }
    return sign_transaction(body, key, CHAIN_ID)


@contextlib.asynccontextmanager
async def running_engine(folder: Path, **options: Any) -> AsyncIterator[Engine]:
    """An engine that makes blocks."""
    engine = make_engine(folder, **options)
    engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
        engine.store.close()


@contextlib.asynccontextmanager
async def running_door(folder: Path, **options: Any) -> AsyncIterator[tuple[Engine, Chain]]:
    """A node in this process, listening on a free port, and a client of it."""
    async with running_engine(folder / "chain", **options) as engine:
        content = ContentStore(folder / "content", quota_bytes=4 * 1024 * 1024)
        server = Server("127.0.0.1", 0)
        door = Door(engine, content, "0.0.0", LOCAL_NAMES)
        await server.start(door.application, door.lane)
        chain = Chain(f"http://127.0.0.1:{server.port}", timeout_seconds=60)
        try:
            yield engine, chain
        finally:
            await chain.close()
            engine.hub.close()
            await server.stop()
