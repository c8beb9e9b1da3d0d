"""The chain client: deadlines that say what was waited for, one effect for any number of sendings, streams that resume."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from openresource.client import content
from openresource.client.answers import (
    BadAnswer,
    NodeAway,
    NodeRefused,
    TransactionDropped,
    TransactionNotFinal,
    TransactionRefused,
    failed_code,
)
from openresource.client.chain import Chain, set_value
from openresource.primitives.cids import BlockMismatch, cid_of_block, file_cid, folder_cid
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import generate_key
from tests.support.network import local_node
from tests.support.ports import hold_port, port_of

KEY = generate_key(b"somebody who talks to the chain..")
AIN = 1_000_000


async def answering(body: Callable[[bytes], bytes]) -> tuple[asyncio.Server, str]:
    """A server that answers every request with a body of our choice."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = body(head)
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(answer) + answer
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_node_that_is_away_is_waited_for_until_the_deadline_and_named() -> None:
    async def story() -> None:
        with hold_port() as nobody:
            await ask_nobody(f"http://127.0.0.1:{port_of(nobody)}")

    async def ask_nobody(url: str) -> None:
        async with asyncio.timeout(60), Chain(url, timeout_seconds=0.4) as chain:
            began = time.monotonic()
            with pytest.raises(NodeAway) as away:
                await chain.read("/x")
            assert 0.2 < time.monotonic() - began < 5
            assert url in away.value.message and "openresource node start" in away.value.remedy
            with pytest.raises(NodeAway):
                async for _ in chain.events("/x", away_seconds_max=0.2):
                    pass

    asyncio.run(story())


def test_a_call_made_too_early_succeeds_when_the_node_comes_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_node(tmp_path) as node:
            port, _ = node.port, node.stop()
            async with Chain(f"http://127.0.0.1:{port}", timeout_seconds=60) as early:
                waiting = asyncio.create_task(early.status())
                await asyncio.to_thread(node.start)
                assert (await waiting).genesis_hash == node.genesis_hash
                assert (await early.wait_ready(60)).chain_id == 100

    asyncio.run(story())


def test_a_refused_write_says_what_the_chain_said() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            with pytest.raises(TransactionRefused) as refusal:
                await chain.write("/apps/nobody/x", 1, KEY)
            assert refusal.value.result_code == 12103
            assert refusal.value.tx_hash.startswith("0x")
            with pytest.raises(TransactionRefused) as poor:
                await chain.write(f"/transfer/{KEY.address}/{node.funding_key.address}/a/value", 5, KEY)
            assert poor.value.result_code >= 21000
            with pytest.raises(NodeRefused) as unknown:
                await chain.rpc("ore_nothing", {})
            assert unknown.value.node_code == -32601

    asyncio.run(story())


def test_one_signed_transaction_takes_effect_once_however_often_it_is_sent() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            alice = await node.funded_key(10 * AIN)
            to = node.funding_key.address
            transaction = await chain.sign(set_value(f"/transfer/{alice.address}/{to}/a/value", 1), alice)
            first = await chain.send(transaction)
            await chain.wait_final(first.tx_hash)
            again = await chain.send(transaction)
            assert again.tx_hash == first.tx_hash
            assert await chain.balance(alice.address) == 9 * AIN
            # The node remembers over a restart.
            node.stop()
            node.start()
            await chain.send(transaction)
            assert await chain.balance(alice.address) == 9 * AIN

    asyncio.run(story())


def test_equal_writes_in_one_moment_are_two_transactions() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain(clock=lambda: 1.0)
            await chain.domain()
            one = await chain.sign(set_value("/x", 1), KEY)
            other = await chain.sign(set_value("/x", 1), KEY)
            assert one["signature"] != other["signature"]

    asyncio.run(story())


def test_what_the_node_lost_is_sent_again_or_reported() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain()
            with pytest.raises(TransactionDropped):
                await chain.wait_final("0x" + "12" * 32, deadline_seconds=1)
            alice = await node.funded_key(10 * AIN)
            lost: list[str] = []
            send = chain.send

            async def send_into_the_void(transaction: Any) -> Any:
                """The first time the node dies right after it answered, with the block still open."""
                if not lost:
                    lost.append(transaction["signature"][:66])
                    return type("Submitted", (), {"tx_hash": lost[0], "result": {}})()
                return await send(transaction)

            chain.send = send_into_the_void  # type: ignore[method-assign]
            path = f"/transfer/{alice.address}/{node.funding_key.address}/a/value"
            info = await chain.submit_final(set_value(path, 1), alice, deadline_seconds=60)
            assert info.tx_hash == lost[0]

    asyncio.run(story())


def test_a_stream_survives_the_node_being_killed_and_misses_nothing() -> None:
    async def story() -> None:
        async with local_node() as node:
            chain = node.chain(timeout_seconds=60)
            alice = await node.funded_key(10 * AIN)
            to = node.funding_key.address
            seen: list[str] = []

            async def follow() -> None:
                async with aclosing(chain.events(f"/transfer/{alice.address}/*/*/value")) as stream:
                    async for event in stream:
                        seen.append(event.path.split("/")[4])
                        if len(seen) == 9:
                            return

            following = asyncio.create_task(follow())
            while not (await chain.rpc("ore_status", {}))["readers"]:
                await asyncio.sleep(0.01)
            for number in range(9):
                await chain.write(f"/transfer/{alice.address}/{to}/k{number}/value", 0.1, alice)
                if number in (2, 5):
                    node.kill()
                    await asyncio.to_thread(node.start)
            async with asyncio.timeout(60):
                await following
            assert seen == [f"k{number}" for number in range(9)]

    asyncio.run(story())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"[]",
        b"5",
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":5}',
        b'{"jsonrpc":"2.0","id":1,"result":{"result":5}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"result":{"chain_id":"x"}}}',
        b"[" * 5_000,
    ],
)
def test_a_stranger_at_the_nodes_address_is_refused_in_words(raw: bytes) -> None:
    async def story() -> None:
        server, url = await answering(lambda head: raw)
        async with server, Chain(url, timeout_seconds=60) as chain:
            with pytest.raises(Refusal):
                await chain.status()
            with pytest.raises(Refusal):
                await chain.read("/x")

    asyncio.run(story())


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openresource.client.node_wire.ANSWER_BYTES_MAX", 10_000)

    async def story() -> None:
        server, url = await answering(lambda head: b"x" * 100_000)
        async with server, Chain(url, timeout_seconds=60) as chain:
            with pytest.raises(BadAnswer, match="larger"):
                await chain.status()

    asyncio.run(story())


def test_a_block_of_content_that_is_not_its_name_is_refused() -> None:
    async def story() -> None:
        cid = cid_of_block(b"right").text
        server, url = await answering(lambda head: b"wrong")
        async with server, Chain(url, timeout_seconds=60) as chain:
            with pytest.raises(BlockMismatch):
                await chain.get_block(cid)
            with pytest.raises(BlockMismatch):
                await chain.put_block(cid, b"wrong")

    asyncio.run(story())


def test_a_slow_chain_is_told_apart_from_a_refusal() -> None:
    info = b'{"state":"EXECUTED","number":-1,"index":0,"is_finalized":false,"exec_result":{"code":0}}'

    async def story() -> None:
        answer = b'{"jsonrpc":"2.0","id":1,"result":{"result":' + info + b"}}"
        server, url = await answering(lambda head: answer)
        async with server, Chain(url, timeout_seconds=60) as chain:
            with pytest.raises(TransactionNotFinal) as late:
                await chain.wait_final("0x" + "12" * 32, deadline_seconds=0.2)
            assert late.value.state == "EXECUTED"

    asyncio.run(story())


def test_folders_keep_their_name_and_links_out_of_them_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        blocks: dict[str, bytes] = {}

        async def put(cid: str, data: bytes) -> None:
            blocks[cid] = data

        async def get(cid: str) -> bytes:
            return blocks[cid]

        folder = tmp_path / "folder"
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "a").write_bytes(b"1")
        (folder / "deep" / "er" / "b").write_bytes(b"2" * 600_000)
        cid = await content.put_folder(folder, put)
        assert cid == folder_cid({"a": b"1", "deep/er/b": b"2" * 600_000})
        assert (await content.get_files(cid, get))["a"] == b"1"
        with pytest.raises(Refusal, match="more than"):
            await content.get_files(cid, get, bytes_max=1000)
        with pytest.raises(Refusal, match="more than"):
            await content.get_files(cid, get, files_max=2)
        file = await content.put_bytes(b"3" * 700_000, put)
        assert file == file_cid(b"3" * 700_000)
        assert await content.get_bytes(file, get, bytes_max=700_000) == b"3" * 700_000
        with pytest.raises(Refusal, match="more than"):
            await content.get_bytes(file, get, bytes_max=600_000)
        with pytest.raises(Refusal):
            await content.get_bytes(cid, get, bytes_max=700_000)
        (folder / "link").symlink_to("/etc/passwd")
        with pytest.raises(Refusal, match="link"):
            await content.put_folder(folder, put)
        with pytest.raises(Refusal):
            await content.put_folder(tmp_path / "missing", put)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"code": 0}, 0),
        ({"code": 12103, "message": "no"}, 12103),
        ({"result_list": {"0": {"code": 0}, "1": {"code": 10101, "message": "no"}}}, 10101),
        ({"code": 10104, "func_results": {"_openChannel": {"code": 21001, "message": "poor"}}}, 21001),
        ({"code": 10104, "func_results": {"_transfer": {"code": 20101}}}, 10104),
        (False, -1),
    ],
)
def test_the_code_of_a_failure_is_the_one_that_says_most(result: Any, code: int) -> None:
    assert failed_code(result)[0] == code
