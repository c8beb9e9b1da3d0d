"""The door: what it lets in, what it keeps out, content, events and health over real HTTP."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from openresource.client.answers import NodeRefused, TransactionDropped, TransactionRefused
from openresource.client.chain import Chain, set_value
from openresource.node import events
from openresource.node.server import PortInUse, Server
from openresource.primitives.cids import CHUNK_BYTES, cid_of_block
from tests.node.simple_machine import FAILING_VALUE
from tests.node.simple_node import ALICE, running_door, write

UNKNOWN_HASH = "0x" + "00" * 32


def node_test(folder: Path, story: Any, **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(150), running_door(folder, **options) as (engine, chain):
            await story(engine, chain)

    asyncio.run(run())


def test_a_client_submits_waits_and_reads_at_both_levels(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        submitted = await chain.submit(set_value("/apps/x/a", {"b": 1}), ALICE)
        assert await chain.read("/apps/x/a/b", "pending") == 1
        info = await chain.wait_final(submitted.tx_hash, deadline_seconds=60)
        assert (info.state, info.height, info.index, info.is_final) == ("FINALIZED", 1, 0, True)
        assert await chain.read("/apps/x/a") == {"b": 1}
        assert await chain.read("/apps/x/a", 0) is None
        assert await chain.read("/nothing") is None
        reading = await chain.read_at("/apps/x/a/b", 1)
        assert (reading.value, reading.height) == (1, 1)
        assert reading.paper is not None
        assert reading.paper["hash"] == engine.block(1)["hash"]

    node_test(tmp_path, story)


def test_refused_and_lost_transactions_are_typed(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        with pytest.raises(TransactionRefused) as refusal:
            await chain.submit(set_value("/x", FAILING_VALUE), ALICE)
        assert refusal.value.result_code == 12103
        with pytest.raises(TransactionDropped):
            await chain.wait_final(UNKNOWN_HASH, deadline_seconds=1)
        with pytest.raises(NodeRefused) as unknown:
            await chain.read("/x", 999)
        assert unknown.value.node_code == "unknown-height"
        assert (await chain.transaction(UNKNOWN_HASH)) is None

    node_test(tmp_path, story)


def test_sending_a_transaction_twice_is_sending_it_once(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        transaction = await chain.sign(set_value("/x", 1), ALICE)
        first, second = await asyncio.gather(chain.send(transaction), chain.send(transaction))
        assert first.tx_hash == second.tx_hash
        await chain.wait_final(first.tx_hash)
        assert len(engine.block(1)["transactions"]) == 1

    node_test(tmp_path, story)


def test_children_come_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openresource.client.chain.CHILDREN_PER_PAGE", 7)

    async def story(engine: Any, chain: Chain) -> None:
        await chain.write("/list", {f"k{number}": number for number in range(30)}, ALICE)
        await chain.write("/list/branch/deep", 1, ALICE)
        labels = [label async for label in chain.children("/list")]
        assert sorted(labels) == sorted(["branch", *[f"k{number}" for number in range(30)]])
        branches = {label async for label, is_branch in chain.branches("/list") if is_branch}
        assert branches == {"branch"}
        assert [label async for label in chain.children("/nothing")] == []

    node_test(tmp_path, story)


def test_the_supply_is_the_sum_over_every_holder(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        for number in range(5):
            await chain.write(f"/accounts/0x{number:040x}/balance", 1.5, ALICE)
        await chain.write("/service_accounts/channels/market/a:b/balance", 2.000001, ALICE)
        await chain.write("/service_accounts/treasury/market/fees/balance", 1, ALICE)
        supply = await chain.rpc("ore_supply", {})
        assert supply["total_uain"] == 7_500_000 + 3_000_001
        assert supply["holders"] == 7
        assert supply["service_accounts_uain"] == {"channels": 2_000_001, "treasury": 1_000_000}
        assert (await chain.rpc("ore_supply", {"at": 1}))["total_uain"] == 1_500_000
        assert await chain.balance("channels|market|a:b") == 2_000_001

    node_test(tmp_path, story)


def test_events_resume_behind_a_cursor(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        for number in range(4):
            await chain.write(f"/a/{number}", number, ALICE)
            await chain.write(f"/b/{number}", number, ALICE)
        found = []
        async with aclosing(chain.events("/a", since=0)) as stream:
            async for event in stream:
                found.append(event)
                if len(found) == 2:
                    break
        assert [event.path for event in found] == ["/a/0", "/a/1"]
        async with aclosing(chain.events(["/a/*"], since=found[-1].cursor)) as stream:
            async for event in stream:
                found.append(event)
                if len(found) == 4:
                    asyncio.get_running_loop().call_soon(
                        asyncio.create_task, chain.write("/a/4", {"x": 4}, ALICE)
                    )
                if len(found) == 5:
                    break
        assert [(event.path, event.value) for event in found[2:]] == [
            ("/a/2", 2),
            ("/a/3", 3),
            ("/a/4", {"x": 4}),
        ]
        assert all(event.is_final and event.by == "user" for event in found)

    node_test(tmp_path, story)


def test_a_stream_that_is_cut_goes_on_where_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)

    async def story(engine: Any, chain: Chain) -> None:
        found: list[str] = []

        async def follow() -> None:
            async with aclosing(chain.events("/k")) as stream:
                async for event in stream:
                    found.append(event.path)
                    if len(found) == 40:
                        return

        following = asyncio.create_task(follow())
        while engine.hub.reader_count() == 0:
            await asyncio.sleep(0.005)
        for number in range(40):
            await chain.write(f"/k/{number:02d}", 1, ALICE)
            if number % 10 == 5:
                engine.hub.close()
        await following
        assert found == [f"/k/{number:02d}" for number in range(40)]

    node_test(tmp_path, story)


def test_hints_come_before_the_block(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        kinds = []
        async with aclosing(chain.events("/x", pending=True, blocks=True)) as stream:
            following = asyncio.create_task(anext(stream))
            while engine.hub.reader_count() == 0:
                await asyncio.sleep(0.005)
            await chain.submit(set_value("/x", 1), ALICE)
            kinds.append((await following).kind)
            kinds.append((await anext(stream)).kind)
            kinds.append((await anext(stream)).kind)
        assert kinds == ["PENDING", "WRITE", "BLOCK"]

    node_test(tmp_path, story)


def test_folders_travel_as_verified_blocks(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        folder = tmp_path / "program"
        (folder / "inner").mkdir(parents=True)
        (folder / "a.txt").write_text("hello")
        (folder / "inner" / "large.bin").write_bytes(bytes(range(256)) * (2 * CHUNK_BYTES // 256 + 3))
        (folder / "empty").write_bytes(b"")
        cid = await chain.put_folder(folder)
        assert await chain.put_folder(folder) == cid
        await chain.get_folder(cid, tmp_path / "copy")
        for path in folder.rglob("*"):
            if path.is_file():
                assert (tmp_path / "copy" / path.relative_to(folder)).read_bytes() == path.read_bytes()
        with pytest.raises(Exception, match="not empty"):
            await chain.get_folder(cid, tmp_path / "copy")
        assert await chain.has_block(cid)

    node_test(tmp_path, story)


def test_content_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        good = cid_of_block(b"good").text
        async with httpx2.AsyncClient(base_url=chain.url, trust_env=False) as http:
            assert (await http.put(f"/content/{good}", content=b"bad")).status_code == 400
            assert (await http.put(f"/content/{good}", content=b"good")).status_code == 201
            assert (await http.put(f"/content/{good}", content=b"good")).status_code == 200
            assert (await http.put("/content/nonsense", content=b"x")).status_code == 400
            assert (await http.get(f"/content/{good}")).content == b"good"
            assert (await http.head(f"/content/{good}")).headers["content-length"] == "4"
            missing = await http.get(f"/content/{cid_of_block(b'other').text}")
            assert missing.status_code == 404
            assert missing.json()["error"]["code"] == "content-unknown"
            large = await http.put(f"/content/{good}", content=b"x" * (1024 * 1024 + 1))
            assert large.status_code == 413
            # The quota of the test's node is 4 MiB.
            statuses = set()
            for number in range(5):
                block = bytes([number]) * 1024 * 1024
                statuses.add(
                    (await http.put(f"/content/{cid_of_block(block).text}", content=block)).status_code
                )
            assert statuses == {201, 507}

    node_test(tmp_path, story)


def test_the_door_answers_only_to_its_own_names(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        async with httpx2.AsyncClient(base_url=chain.url, trust_env=False) as http:
            assert (await http.get("/healthz")).json()["status"] == "ok"
            refused = await http.get("/healthz", headers={"host": "attacker.example:8080"})
            assert refused.status_code == 421
            assert refused.json()["error"]["code"] == "wrong-host"
            assert (await http.get("/healthz", headers={"host": "localhost:1"})).status_code == 200
            assert not [name for name in (await http.get("/")).headers if name.startswith("access-control")]

    node_test(tmp_path, story)


def test_bodies_are_bounded_and_json_only(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        async with httpx2.AsyncClient(base_url=chain.url, trust_env=False) as http:
            headers = {"content-type": "application/json"}
            assert (await http.post("/json-rpc", content=b'{"a":', headers=headers)).status_code == 400
            assert (await http.post("/json-rpc", content=b"5", headers=headers)).status_code == 400
            huge = b'{"a":"' + b"x" * 9_000_000 + b'"}'
            assert (await http.post("/json-rpc", content=huge, headers=headers)).status_code == 413
            deep = b"[" * 500 + b"]" * 500
            assert (await http.post("/json-rpc", content=deep, headers=headers)).status_code == 400
            plain = await http.post("/json-rpc", content=b"{}", headers={"content-type": "text/plain"})
            assert plain.json()["code"] == 30102
            url = "/json-rpc?protoVer=1.0.0"
            assert (
                await http.post(url, content=b"{}", headers={"content-type": "text/plain"})
            ).status_code == 415
            assert (await http.get("/json-rpc")).status_code == 404
            assert (await http.get("/nothing")).status_code == 404
            assert (await http.get("/nothing?a=%ff")).status_code == 404
            assert (await http.get("/events?from=nonsense")).status_code == 400
            assert (await http.get("/events?from=99:0")).status_code == 409

    node_test(tmp_path, story)


def test_metrics_are_text_that_prometheus_reads(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        await chain.write("/x", 1, ALICE)
        async with httpx2.AsyncClient(base_url=chain.url, trust_env=False) as http:
            lines = (await http.get("/metrics")).text.splitlines()
        assert "openresource_height 1" in lines
        assert "openresource_transactions_final_total 1" in lines
        assert 'openresource_rpc_requests_total{method="ain_sendSignedTransaction"} 1' in lines
        assert any(line.startswith("openresource_block_seconds_bucket") for line in lines)

    node_test(tmp_path, story)


def test_a_batch_is_refused_whole_or_executed_in_order(tmp_path: Path) -> None:
    async def story(engine: Any, chain: Chain) -> None:
        good = [write(f"/k{number}", number + 1).to_json() for number in range(3)]
        wires = [{name: one[name] for name in ("tx_body", "signature")} for one in good]
        bad = {"tx_body": wires[0]["tx_body"], "signature": wires[1]["signature"]}
        cases: list[tuple[Any, int]] = [
            ([*wires, bad], 30406),
            ([wires[0], {"tx_body": wires[1]["tx_body"]}], 30404),
            ([{"tx_body": {"nonce": -1}, "signature": "0x00"}], 30405),
            ([{"tx_body": {"x": "y" * 60_000}, "signature": "0x00"}], 30403),
            ([], 30401),
            ("x", 30401),
            (wires * 20, 30402),
        ]
        for listed, code in cases:
            with pytest.raises(NodeRefused) as refusal:
                await chain.rpc("ain_sendSignedTransactionBatch", {"tx_list": listed})
            assert refusal.value.node_code == code
        assert engine.pending_transactions() == []
        found = await chain.rpc("ain_sendSignedTransactionBatch", {"tx_list": wires})
        assert [one["tx_hash"] for one in found] == [one["hash"] for one in good]
        assert [one["result"]["code"] for one in found] == [0, 0, 0]

    node_test(tmp_path, story)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortInUse) as refusal:
            Server("127.0.0.1", other.getsockname()[1])
    assert "--port" in refusal.value.remedy
