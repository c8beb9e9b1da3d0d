"""AI Network's reading methods over a real local network, asked as its clients ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from openresource.client.answers import NodeRefused
from openresource.client.chain import Chain, set_function, set_rule, set_value
from openresource.primitives.keys import PrivateKey
from tests.support.network import NodeProcess, local_node

AIN = 1_000_000
STRANGER = "0x08Aed7AF9354435c38d52143EE50ac839D20696b"

Story = Callable[[NodeProcess, Chain, PrivateKey], Awaitable[None]]


def over_a_network(story: Story) -> None:
    """Run a story with an app that alice made."""

    async def run() -> None:
        async with asyncio.timeout(150), local_node() as node:
            chain = node.chain()
            alice = await node.funded_key(100 * AIN)
            await chain.submit_final(
                set_value("/manage_app/trace_app/create/1", {"admin": {alice.address: True}}), alice
            )
            await story(node, chain, alice)

    asyncio.run(run())


def test_blocks_and_what_is_in_them() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        last = await chain.rpc("ain_getLastBlock", {})
        number = last["number"]
        assert await chain.rpc("ain_getLastBlockNumber", {}) == number
        assert await chain.rpc("net_getChainId", {}) == 100
        assert await chain.rpc("net_getNetworkId", {}) == 100
        full = await chain.rpc("ain_getBlockByNumber", {"number": number, "getFullTransactions": True})
        assert full == last
        hashes = await chain.rpc("ain_getBlockByNumber", {"number": str(number)})
        assert hashes["transactions"] == [one["hash"] for one in full["transactions"]]
        assert (
            await chain.rpc("ain_getBlockByHash", {"hash": last["hash"], "getFullTransactions": "true"})
            == last
        )
        for missing in ({"number": -1}, {"number": 10**8}, {"number": 1.5}, {"number": "abc"}, {}):
            assert await chain.rpc("ain_getBlockByNumber", missing) is None
        listed = await chain.rpc("ain_getBlockList", {"from": 0, "to": 2})
        assert [block["number"] for block in listed] == [0, 1]
        for span, expected in (
            ({"from": 1, "to": 1}, []),
            ({"from": 2, "to": 1}, []),
            ({"from": 10**8, "to": 10**8 + 5}, []),
            ({"from": number + 1}, [number]),
            ({"from": "1", "to": "2"}, list(range(number + 1))),
        ):
            headers = await chain.rpc("ain_getBlockHeadersList", span)
            assert [header["number"] for header in headers] == expected
            assert all("hash" not in header and "transactions" not in header for header in headers)
        for key, value in (("Number", number), ("Hash", last["hash"])):
            params = {key.lower(): value}
            assert await chain.rpc(f"ain_getBlockTransactionCountBy{key}", params) == len(
                full["transactions"]
            )
            assert await chain.rpc(f"ain_getProposerBy{key}", params) == last["proposer"]
            assert await chain.rpc(f"ain_getValidatorsBy{key}", params) == last["validators"]
        assert await chain.rpc("ain_getProposerByNumber", {"number": 10**8}) is None
        assert await chain.rpc("ain_getAddress", {}) == last["proposer"]
        info = await chain.rpc("ain_getValidatorInfo", {"address": last["proposer"]})
        assert info["isWhitelisted"] is True
        assert await chain.rpc("ain_getValidatorInfo", {}) == {"isWhitelisted": False, "stake": 0}

    over_a_network(story)


def test_transactions_and_accounts() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        numbered = await chain.submit(set_value("/apps/trace_app/x", 1), alice, nonce=0)
        assert await chain.rpc("ain_getNonce", {"address": alice.address, "from": "pending"}) == 1
        info = await chain.wait_final(numbered.tx_hash)
        assert await chain.rpc("ain_getNonce", {"address": alice.address.lower()}) == 1
        timed = await chain.submit(set_value("/apps/trace_app/y", 1), alice, nonce=-2)
        await chain.wait_final(timed.tx_hash)
        body = (await chain.transaction(timed.tx_hash)).transaction["tx_body"]  # type: ignore[union-attr]
        assert await chain.rpc("ain_getTimestamp", {"address": alice.address}) == body["timestamp"]
        for bad in ({"address": "nope"}, {}):
            assert await chain.rpc("ain_getNonce", bad) == -1
            assert await chain.rpc("ain_getTimestamp", bad) == -1
            assert await chain.rpc("ain_getBalance", bad) == 0
        for address in (alice.address, alice.address.lower()):
            assert await chain.rpc("ain_getBalance", {"address": address}) == 100
        place = {"block_number": info.height, "index": info.index}
        found = await chain.rpc("ain_getTransactionByBlockNumberAndIndex", place)
        assert found["transaction"]["hash"] == numbered.tx_hash
        block = await chain.rpc("ain_getBlockByNumber", {"number": info.height})
        place = {"block_hash": block["hash"], "index": info.index}
        assert await chain.rpc("ain_getTransactionByBlockHashAndIndex", place) == found
        for bad in ({}, {"block_number": "0", "index": 0}, {"block_number": info.height, "index": 99}):
            assert await chain.rpc("ain_getTransactionByBlockNumberAndIndex", bad) is None
        assert await chain.rpc("ain_getTransactionByHash", {}) is None
        utilization = await chain.rpc("ain_getTransactionPoolSizeUtilization", {"address": alice.address})
        assert utilization["used"] == 0
        assert await chain.rpc("ain_getPendingTransactions", {}) == {}

    over_a_network(story)


def test_a_dry_run_says_what_would_happen_and_leaves_nothing() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        before = await chain.rpc("ain_getLastBlockNumber", {})
        transaction = await chain.sign(set_value("/apps/trace_app/x", {"y": 1}), alice)
        outcome = await chain.rpc("ain_sendSignedTransactionDryrun", transaction)
        assert outcome["result"]["code"] == 0
        assert outcome["result"]["is_dryrun"] is True
        assert await chain.read("/apps/trace_app/x", "pending") is None
        assert await chain.rpc("ain_getTransactionByHash", {"hash": outcome["tx_hash"]}) is None
        assert await chain.rpc("ain_getLastBlockNumber", {}) == before
        await chain.send(transaction)

    over_a_network(story)


def test_reads_of_all_trees_with_their_options() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        rule = {".rule": {"write": f"auth.addr === '{alice.address}'"}}
        function = {
            ".function": {
                "0xf": {
                    "function_type": "REST",
                    "function_id": "0xf",
                    "function_url": "https://events.example.com/trigger",
                }
            }
        }
        data = {"s": "text", "n": 1.5, "o": {"k": "v"}, "u": "한글"}
        await chain.submit_final(
            [
                set_rule("/apps/trace_app/data", rule),
                set_function("/apps/trace_app/data/fn", function),
                set_value("/apps/trace_app/data", data),
            ],
            alice,
        )

        async def get(kind: str, ref: str | None = "/apps/trace_app/data", **options: Any) -> Any:
            return await chain.rpc(
                "ain_get", {"type": kind, **({} if ref is None else {"ref": ref}), **options}
            )

        assert await get("GET_VALUE") == data
        assert await get("GET_VALUE", "apps//trace_app/data/", is_final=True) == data
        assert await get("GET_VALUE", "/apps/trace_app/data/n") == 1.5
        assert await get("GET_VALUE", "/nope") is None
        assert (await get("GET_VALUE", None))["apps"]["trace_app"]["data"] == data
        assert await get("GET_RULE") == rule
        assert await get("GET_FUNCTION", "/apps/trace_app/data/fn") == function
        owners = await get("GET_OWNER", "/apps/trace_app")
        assert alice.address in owners[".owner"]["owners"]
        shallow = await get("GET_VALUE", is_shallow="true")
        assert set(shallow["o"]) == {"#state_ph"} and shallow["s"] == "text"
        proof = await get("GET_VALUE", include_proof=True)
        assert proof["#state_ph:s"].startswith("0x")
        assert (await get("GET_VALUE", include_version=True))["#version"].startswith("NODE:")
        assert (await get("GET_VALUE", include_tree_info=True))["#tree_size"] == 6
        page = await get("GET_VALUE", is_partial=True)
        behind = await get("GET_VALUE", is_partial=True, last_end_label=page["#end_label"])
        assert behind == {"#end_label": None}
        listed = [
            {"type": "GET_VALUE", "ref": "/apps/trace_app/data/n"},
            {"ref": "/apps/trace_app/data/s"},
            {"type": "NOTHING", "ref": "/"},
            {"type": "GET_RULE", "ref": "/apps/trace_app/data"},
            {"type": "MATCH_OWNER", "ref": "/apps/trace_app/data"},
            {"type": "EVAL_RULE", "ref": "/apps/trace_app/data/n", "value": 2, "address": alice.address},
        ]
        found = await get("GET", None, op_list=listed)
        assert found[:3] == [1.5, "text", rule]
        assert found[3]["matched_config"]["path"] == "/apps/trace_app"
        assert (found[4]["code"], len(found)) == (0, 5)
        for params, code in (
            ({"type": "GET_ALL"}, 30001),
            ({}, 30001),
            ({"type": "GET", "op_list": []}, 30006),
            ({"type": "GET", "op_list": [{"ref": "/a"}] * 51}, 30004),
        ):
            with pytest.raises(NodeRefused) as refusal:
                await chain.rpc("ain_get", params)
            assert refusal.value.node_code == code

    over_a_network(story)


def test_matches_and_evaluations() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        rule = {".rule": {"write": f"auth.addr === '{alice.address}'"}}
        await chain.submit_final(set_rule("/apps/trace_app/data/$key", rule), alice)
        matched = await chain.rpc("ain_matchRule", {"ref": "/apps/trace_app/data/a"})
        assert matched["write"]["matched_path"]["path_vars"] == {"$key": "a"}
        assert matched["write"]["matched_config"]["config"] == rule[".rule"]
        transfer = f"/transfer/{alice.address}/{STRANGER}/1/value"
        function = await chain.rpc("ain_matchFunction", {"ref": transfer})
        assert function["matched_path"]["target_path"] == "/transfer/$from/$to/$key/value"
        assert "_transfer" in function["matched_config"]["config"]
        owner = await chain.rpc("ain_matchOwner", {"ref": "/apps/trace_app/data"})
        assert owner["matched_config"]["path"] == "/apps/trace_app"
        question = {"ref": "/apps/trace_app/data/a", "value": 1}
        assert (await chain.rpc("ain_evalRule", {**question, "address": alice.address}))["code"] == 0
        denied = await chain.rpc("ain_evalRule", {**question, "address": STRANGER})
        assert denied["code"] == 12103 and STRANGER in denied["message"]
        assert (await chain.rpc("ain_evalRule", {}))["code"] == 12101
        permission = {"ref": "/apps/trace_app", "permission": "write_rule"}
        assert (await chain.rpc("ain_evalOwner", {**permission, "address": alice.address}))["code"] == 0
        assert (await chain.rpc("ain_evalOwner", {**permission, "address": STRANGER}))["code"] == 12302
        assert (await chain.rpc("ain_evalOwner", {"ref": "/apps/trace_app"}))["code"] == 12201

    over_a_network(story)


def test_names_usage_and_facts_about_the_state() -> None:
    async def story(node: NodeProcess, chain: Chain, alice: PrivateKey) -> None:
        for name, code in (
            ("a.b", 30601),
            ("", 30601),
            (5, 30601),
            ("TraceApp", 30602),
            ("a-b", 30602),
            ("0app", 30602),
            ("balance_total_sum", 30602),
            ("trace_app", 30603),
            ("consensus", 30603),
        ):
            with pytest.raises(NodeRefused) as refusal:
                await chain.rpc("ain_validateAppName", {"app_name": name})
            assert refusal.value.node_code == code
        assert await chain.rpc("ain_validateAppName", {"app_name": "fresh_name"}) is True
        assert await chain.rpc("ain_getStateUsage", {}) is None
        await chain.submit_final(set_value("/apps/trace_app/x", "text"), alice)
        usage = await chain.rpc("ain_getStateUsage", {"app_name": "trace_app"})
        assert usage["usage"]["tree_bytes"] > 0
        assert usage["available"]["tree_bytes"] > 0
        assert usage["staking"] == {"app": 0, "total": 0, "unstakeable": 0}
        info = await chain.rpc("ain_getStateInfo", {"ref": "/values/apps/trace_app/x"})
        assert info["#state_ph"] == await chain.rpc("ain_getProofHash", {"ref": "/values/apps/trace_app/x"})
        assert info["#tree_bytes"] == 168
        last = await chain.rpc("ain_getLastBlock", {})
        proof = await chain.rpc("ain_getStateProof", {"ref": "/values/apps/trace_app/x"})
        assert proof["#state_ph"] == last["state_proof_hash"]
        for method in ("ain_getStateInfo", "ain_getProofHash", "ain_getStateProof"):
            assert await chain.rpc(method, {"ref": "/values/nope"}) is None
        root = await chain.rpc("ain_getStateProof", {})
        assert root == {"#state_ph": last["state_proof_hash"]}
        status = await chain.rpc("net_consensusStatus", {})
        assert status["state"] == "RUNNING" and list(status["validators"]) == [last["proposer"]]
        assert await chain.rpc("net_peerCount", {}) == 0

    over_a_network(story)
