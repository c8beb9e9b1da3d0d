"""A node as a process: first start, refusals, graceful stop, and kill -9 in the middle of writing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from openresource.client.answers import NodeAway, TransactionRefused, WrongNetwork
from openresource.client.chain import Chain, set_value
from openresource.client.proofs import verify_state_proof
from openresource.node.announcements import decoded_block
from openresource.node.store import Store
from openresource.primitives.amounts import ain_number
from openresource.primitives.keys import PrivateKey
from tests.support.network import NodeProcess, local_node, local_node_process

AIN = 1_000_000
TOTAL_UAIN = 700_000_000 * AIN


def transfer(key: PrivateKey, to: str, record: str, amount_uain: int) -> Any:
    return set_value(f"/transfer/{key.address}/{to}/{record}/value", ain_number(amount_uain))


def test_a_first_start_makes_a_network_with_its_accounts() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            status = await chain.status()
            assert (status.network, status.chain_id, status.profile) == ("local", 100, "openresource")
            assert status.genesis_hash == node.genesis_hash
            assert await chain.balance(node.funding_key.address) == 420_000_000 * AIN
            supply = await chain.rpc("ore_supply", {})
            assert (supply["total_uain"], supply["holders"]) == (TOTAL_UAIN, 2)
            for name in ("funding.json", "reserved.json", "producer.json"):
                mode = (node.home / "node" / name).stat().st_mode
                assert stat.S_IMODE(mode) == 0o600

    asyncio.run(story())


def test_money_moves_by_ordinary_transfers_and_none_is_lost() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            alice = await node.funded_key(5 * AIN)
            bob = await node.funded_key(1 * AIN)
            await chain.submit_final(transfer(alice, bob.address, "first", 1_234_567), alice)
            assert await chain.balance(alice.address) == 3_765_433
            assert await chain.balance(bob.address) == 2_234_567
            with pytest.raises(TransactionRefused):
                await chain.submit(transfer(alice, bob.address, "second", 50 * AIN), alice)
            with pytest.raises(TransactionRefused):
                await chain.submit(transfer(alice, bob.address, "third", AIN), bob)
            assert (await chain.rpc("ore_supply", {}))["total_uain"] == TOTAL_UAIN
            assert (await chain.rpc("ore_supply", {"at": 1}))["total_uain"] == TOTAL_UAIN

    asyncio.run(story())


def test_a_paper_of_a_real_node_proves_a_balance_now_and_in_the_past() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            alice = await node.funded_key(5 * AIN)
            height = (await chain.status()).height
            await node.fund(alice.address, 1 * AIN)
            for at, expected in ((height, 5), ("final", 6)):
                reading = await chain.read_at(f"/accounts/{alice.address}/balance", at)  # type: ignore[arg-type]
                assert reading.paper is not None
                assert verify_state_proof(reading.paper, node.genesis_hash).value == expected

    asyncio.run(story())


def test_a_home_in_use_a_taken_port_and_a_newer_store_are_refused_in_words(tmp_path: Path) -> None:
    def refusal_of(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "openresource.node", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        error: dict[str, Any] = json.loads(done.stdout)["error"]
        assert error["message"] and error["remedy"]
        return error

    with local_node_process(tmp_path / "one") as node:
        in_use = refusal_of("--home", str(node.home), "--port", "0")
        assert in_use["code"] == "home-in-use"
        assert str(node.pid) in in_use["message"]
        assert refusal_of("--home", str(tmp_path / "two"), "--port", str(node.port))["code"] == "port-in-use"
        node.stop()
        environment = Store.open(node.home / "node" / "chain")
        environment.set_meta("format", b"999")
        environment.close()
        assert refusal_of("--home", str(node.home), "--port", "0")["code"] == "store-too-new"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert (
            refusal_of("--home", str(tmp_path / "x"), "--network", "nowhere", "--port", "0")["code"]
            == "unknown-network"
        )


def test_a_home_that_lost_its_producer_key_is_refused(tmp_path: Path) -> None:
    with local_node_process(tmp_path) as node:
        node.stop()
        (node.home / "node" / "producer.json").unlink()
        command = [sys.executable, "-m", "openresource.node", "--home", str(node.home), "--port", "0"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert json.loads(done.stdout)["error"]["code"] == "wrong-producer"


def test_a_graceful_stop_is_quick_even_with_readers_and_keeps_everything() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain, hasty = node.chain(), node.chain(timeout_seconds=1)
            alice = await node.funded_key(5 * AIN)
            async with aclosing(chain.events("/transfer", since=0, away_seconds_max=0.2)) as stream:
                assert (await anext(stream)).kind == "WRITE"
                submitted = await chain.submit(transfer(alice, node.funding_key.address, "a", AIN), alice)
                assert await asyncio.to_thread(node.stop) == 0
            with pytest.raises(NodeAway) as away:
                await hasty.status()
            assert node.url in away.value.message
            node.start()
            info = await chain.transaction(submitted.tx_hash)
            assert info is not None and info.is_final

    asyncio.run(story())


def test_a_client_that_expects_another_network_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain(genesis_hash="0x" + "11" * 32)
            with pytest.raises(WrongNetwork):
                await chain.read("/x")
            known = node.chain()
            await known.domain()
            # The same address, a chain begun anew: papers of the old one are worth nothing here.
            node.stop()
            shutil.rmtree(node.home / "node")
            node.start()
            with pytest.raises(WrongNetwork):
                await known.read("/x")

    asyncio.run(story())


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(4))
def test_whatever_was_said_to_be_final_survives_kill_9(seed: int) -> None:
    chance = random.Random(seed)

    async def write_until_killed(
        chain: Chain, keys: list[PrivateKey], to: str, final: dict[str, int]
    ) -> None:
        async def one_writer(key: PrivateKey, writer: int) -> None:
            with contextlib.suppress(NodeAway):
                for number in range(10_000):
                    submitted = await chain.submit(transfer(key, to, f"w{writer}n{number}", 1), key)
                    info = await chain.wait_final(submitted.tx_hash)
                    final[submitted.tx_hash] = info.height

        await asyncio.gather(*[one_writer(key, writer) for writer, key in enumerate(keys)])

    async def once(seconds: float, attempt: Callable[[], Awaitable[Any]], doing: str) -> Any:
        return await attempt()

    async def story() -> None:
        async with local_node() as node:
            keys = [await node.funded_key(AIN) for _ in range(4)]
            target = (await node.funded_key(AIN)).address
            final: dict[str, int] = {}
            chain = node.chain(timeout_seconds=60)
            # Whoever waits for the node to come back would go on writing then.
            chain._wire.within = once  # type: ignore[method-assign]
            writing = asyncio.create_task(write_until_killed(chain, keys, target, final))
            async with asyncio.timeout(60):
                while not final and not writing.done():
                    await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0, 1))
            node.kill()
            await writing
            assert final
            node.start()
            after = node.chain()
            for tx_hash, height in final.items():
                info = await after.transaction(tx_hash)
                assert info is not None and info.is_final and info.height == height
            assert (await after.rpc("ore_supply", {}))["total_uain"] == TOTAL_UAIN
            # The chain goes on.
            await node.fund(target, 1)
            node.stop()
            check_state_hashes(node)

    asyncio.run(story())


def check_state_hashes(node: NodeProcess) -> None:
    """Every stored state has the hash that its block names, and every block names the one before it."""
    with Store.open(node.home / "node" / "chain", read_only=True) as store:
        last_hash = ""
        for height in range(store.height + 1):
            raw, view = store.block(height), store.view_at(height)
            assert raw is not None and view is not None
            block = decoded_block(raw)
            assert view.root_hash() == block["state_proof_hash"]
            assert block["last_hash"] == last_hash
            last_hash = block["hash"]
