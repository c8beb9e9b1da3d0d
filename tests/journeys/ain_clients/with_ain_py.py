"""A developer's day with ain-py against a node: runs in the client's own environment and prints a line for each check.

python with_ain_py.py NODE_URL NODE_ADDRESS KEY OTHER_KEY
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from ain.ain import Ain
from ain.errors import BlockchainError
from ain.types import (
    EvalOwnerInput,
    EvalRuleInput,
    GetOperation,
    GetOptions,
    MatchInput,
    SetMultiTransactionInput,
    SetOperation,
    StateInfoInput,
    TransactionBody,
    TransactionInput,
    ValueOnlyTransactionInput,
)

FINAL_SECONDS_MAX = 60.0
MNEMONIC = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
checks = 0


def check(name: str, is_good: object, seen: Any = None) -> None:
    """One line of the result."""
    global checks
    checks += 1
    print(json.dumps({"check": name, "ok": bool(is_good), "seen": repr(seen)[:300]}), flush=True)


def equal(name: str, seen: Any, wanted: Any) -> None:
    check(name, seen == wanted, seen)


async def refused(name: str, act: Callable[[], Awaitable[Any]], code: int) -> None:
    """The client raises the node's refusal."""
    try:
        seen: Any = await act()
    except BlockchainError as error:
        check(name, error.code == code and str(error).startswith(f"{code}: "), error)
        return
    check(name, False, seen)


async def final(ain: Ain, tx_hash: str) -> Any:
    """What the node tells about a transaction once its block is final."""
    deadline = time.monotonic() + FINAL_SECONDS_MAX
    while time.monotonic() < deadline:
        info = await ain.getTransactionByHash(tx_hash)
        if info and info["is_finalized"]:
            return info
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{tx_hash} is not final")


def code_of(answer: Any) -> Any:
    return answer["result"].get("code")


async def network(ain: Ain, node_address: str) -> None:
    equal("network id", await ain.net.getNetworkId(), 0)
    equal("chain id", await ain.net.getChainId(), 0)
    equal("listening", await ain.net.isListening(), True)
    equal("syncing", await ain.net.isSyncing(), False)
    peers = await ain.net.getPeerCount()
    check("peer count", peers >= 1, peers)
    status = await ain.net.getConsensusStatus()
    check("consensus status", status["state"] == "RUNNING" and status["health"] is True, status)
    check("validators of the status", node_address in status["validators"], status["validators"])
    raw = await ain.net.getRawConsensusStatus()
    equal("raw consensus status", raw["consensus"]["state"], "RUNNING")
    info = await ain.net.getPeerCandidateInfo()
    equal("peer candidate info", info["address"], node_address)
    equal("protocol version", await ain.net.getProtocolVersion(), "1.6.0")
    checked = await ain.net.checkProtocolVersion()
    check("protocol version check", checked["result"] is True and checked["code"] == 0, checked)
    events = await ain.net.getEventHandlerNetworkInfo()
    check("event handler", events["url"].startswith("ws://"), events)
    equal("address of the node", await ain.provider.getAddress(), node_address)


async def accounts(ain: Ain, key: str, other_key: str) -> tuple[str, str]:
    me, other = ain.wallet.addAndSetDefaultAccount(key), ain.wallet.add(other_key)
    ain.wallet.create(2)
    equal("wallet length", ain.wallet.length, 4)
    hd = ain.wallet.addFromHDWallet(MNEMONIC, 0)
    check("account of a mnemonic", ain.wallet.isAdded(hd), hd)
    signature = ain.wallet.sign("a text", me)
    check("signature of a text", ain.wallet.verifySignature("a text", signature, me), signature)
    equal("signer of a text", ain.wallet.recover(signature), me)
    equal("balance", await ain.wallet.getBalance(), 1_000_000)
    equal("nonce", await ain.wallet.getNonce(), 0)
    equal("nonce that is pending", await ain.wallet.getNonce(source="pending"), 0)
    equal("timestamp", await ain.wallet.getTimestamp(), 0)
    equal("balance of nobody", await ain.db.ref(f"/accounts/{hd}/balance").getValue(), None)
    return me, other


async def transfers(ain: Ain, me: str, other: str) -> None:
    before = await ain.wallet.getBalance(other)
    tried = await ain.wallet.transfer(toAddress=other, value=5, nonce=-1, isDryrun=True)
    check("dry run of a transfer", code_of(tried) == 0 and tried["result"]["is_dryrun"] is True, tried)
    equal("a dry run moves nothing", await ain.wallet.getBalance(other), before)
    sent = await ain.wallet.transfer(toAddress=other, value=12.345678, nonce=-1)
    equal("transfer", code_of(sent), 0)
    equal("function of a transfer", sent["result"]["func_results"]["_transfer"]["code"], 0)
    equal("balance at once", await ain.wallet.getBalance(other), before + 12.345678)
    info = await final(ain, sent["tx_hash"])
    equal("transfer is final", info["state"], "FINALIZED")
    equal("receipt of a transfer", info["receipt"]["code"], 0)
    for name, value in (("nothing", 0), ("seven decimals", 0.1234567)):
        try:
            await ain.wallet.transfer(toAddress=other, value=value, nonce=-1)
            check(f"transfer of {name}", False)
        except ValueError as error:
            check(f"transfer of {name}", True, error)
    much = await ain.wallet.transfer(toAddress=other, value=99_999_999, nonce=-1)
    equal("transfer of too much", code_of(much), 12103)


async def app(ain: Ain, me: str, other: str, name: str) -> None:
    fresh = await ain.validateAppName(name)
    check("free app name", fresh["is_valid"] is True and fresh["code"] == 0, fresh)
    await refused("app name with a slash", lambda: ain.validateAppName("app/path"), 30601)
    created = await ain.sendTransaction(
        TransactionInput(
            SetOperation("SET_VALUE", f"/manage_app/{name}/create/1", {"admin": {me: True}}), nonce=-1
        )
    )
    equal("app", code_of(created), 0)
    equal("function of an app", created["result"]["func_results"]["_createApp"]["code"], 0)
    await final(ain, created["tx_hash"])
    await refused("app name in use", lambda: ain.validateAppName(name), 30603)
    ref = ain.db.ref(f"/apps/{name}")
    everything = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}
    owner = {".owner": {"owners": {me: everything}}}
    tried = await ref.setOwner(ValueOnlyTransactionInput(value=owner, nonce=-1), isDryrun=True)
    check("dry run of an owner", tried["result"]["is_dryrun"] is True and code_of(tried) == 0, tried)
    answer = await ref.setOwner(ValueOnlyTransactionInput(value=owner, nonce=-1))
    equal("owner", code_of(answer), 0)
    rule = {".rule": {"write": f"auth.addr === '{me}'"}}
    answer = await ref.setRule(ValueOnlyTransactionInput(ref="data", value=rule, nonce=-1))
    equal("rule", code_of(answer), 0)
    url = "https://events.ainetwork.ai/trigger"
    function = {".function": {"0xf": {"function_type": "REST", "function_id": "0xf", "function_url": url}}}
    answer = await ref.setFunction(ValueOnlyTransactionInput(ref="data/fn", value=function, nonce=-1))
    equal("function", code_of(answer), 0)
    equal("owner as read", await ref.getOwner(), owner)
    equal("rule as read", await ref.getRule("data"), rule)
    equal("function as read", await ref.getFunction("data/fn"), function)
    await values(ain, name)
    await permissions(ain, me, other, name)
    denied = await ain.sendTransaction(
        TransactionInput(SetOperation("SET_VALUE", f"/apps/{name}/data/a", "hacked"), address=other, nonce=-1)
    )
    equal("a rule denies", code_of(denied), 12103)
    info = await final(ain, denied["tx_hash"])
    equal("what was denied is reverted", info["state"], "REVERTED")
    denied = await ain.sendTransaction(
        TransactionInput(SetOperation("SET_OWNER", f"/apps/{name}", owner), address=other, nonce=-1)
    )
    equal("an owner denies", code_of(denied), 12502)


async def values(ain: Ain, name: str) -> None:
    ref = ain.db.ref(f"/apps/{name}/data")
    text = {"s": "text", "n": 1.5, "b": True, "o": {"k": "v"}}
    nonce = await ain.wallet.getNonce(source="pending")
    answer = await ref.setValue(ValueOnlyTransactionInput(ref="a", value=text))
    equal("value", code_of(answer), 0)
    equal("nonce goes on", await ain.wallet.getNonce(source="pending"), nonce + 1)
    equal("value as read", await ref.getValue("a"), text)
    equal("increment", code_of(await ref.incrementValue(ValueOnlyTransactionInput(ref="n", value=5))), 0)
    equal("decrement", code_of(await ref.decrementValue(ValueOnlyTransactionInput(ref="n", value=2))), 0)
    equal("counter as read", await ref.getValue("n"), 3)
    several = await ref.set(
        SetMultiTransactionInput(
            [SetOperation("SET_VALUE", "x", 1), SetOperation("INC_VALUE", "n", 1)], nonce=-1
        )
    )
    codes = [one["code"] for one in several["result"]["result_list"].values()]
    equal("several operations", codes, [0, 0])
    pushed = await ref.pushValue("pushed")
    equal("push", code_of(pushed), 0)
    equal("delete", code_of(await ref.deleteValue(ValueOnlyTransactionInput(ref="x", nonce=-1))), 0)
    equal("deleted as read", await ref.getValue("x"), None)
    shallow = await ain.db.ref(f"/apps/{name}").getValue("", GetOptions(is_shallow=True))
    check("shallow read", set(shallow["data"]) == {"#state_ph"}, shallow)
    proven = await ref.getValue("a", GetOptions(include_proof=True, include_tree_info=True))
    check("read with hashes", "#state_ph:s" in proven and proven["#tree_size:s"] == 1, proven)
    await final(ain, pushed["tx_hash"])
    equal("final read", await ref.getValue("n", GetOptions(is_final=True)), 4)
    listed = await ref.get([GetOperation("GET_VALUE", "n"), GetOperation("GET_RULE", "")])
    check("several reads", listed[0] == 4 and ".rule" in listed[1], listed)
    await refused("no reads", lambda: ref.get([]), 30006)
    number = await ref.setValue(ValueOnlyTransactionInput(ref="big", value=12345678901234, nonce=-1))
    equal("a large number", code_of(number), 0)


async def permissions(ain: Ain, me: str, other: str, name: str) -> None:
    ref = ain.db.ref(f"/apps/{name}/data")
    mine = await ref.evalRule(EvalRuleInput(ref="a", value=1, address=me))
    theirs = await ref.evalRule(EvalRuleInput(ref="a", value=1, address=other))
    check("rule for me and others", (mine["code"], theirs["code"]) == (0, 12103), (mine, theirs))
    mine = await ref.evalOwner(EvalOwnerInput(ref="", permission="write_rule", address=me))
    theirs = await ref.evalOwner(EvalOwnerInput(ref="", permission="write_rule", address=other))
    check("owner for me and others", (mine["code"], theirs["code"]) == (0, 12302), (mine, theirs))
    matched = await ref.matchFunction(MatchInput(ref="fn"))
    equal("function that matches", list(matched["matched_config"]["config"]), ["0xf"])
    matched = await ref.matchRule(MatchInput(ref="a/b"))
    equal("rule that matches", matched["write"]["matched_config"]["path"], f"/apps/{name}/data")
    matched = await ref.matchOwner(MatchInput(ref="a/b"))
    equal("owner that matches", matched["matched_config"]["path"], f"/apps/{name}")
    full = StateInfoInput(ref=f"/values/apps/{name}/data/a")
    root = ain.db.ref()
    info, proof_hash = await root.getStateInfo(full), await root.getProofHash(full)
    equal("proof hash", info["#state_ph"], proof_hash)
    proof = await root.getStateProof(full)
    check("state proof", proof_hash in json.dumps(proof) and "#state_ph" in proof, proof)
    equal("proof of nothing", await root.getStateProof(StateInfoInput(ref="/values/apps/none")), None)
    usage = await ain.getStateUsage(name)
    check("state usage", usage["usage"]["tree_bytes"] > 0 and usage["staking"]["app"] == 0, usage)


async def batches(ain: Ain, name: str) -> None:
    listed = await ain.sendTransactionBatch(
        [
            TransactionInput(SetOperation("SET_VALUE", f"/apps/{name}/data/batch/{index}", index))
            for index in range(3)
        ]
    )
    equal("batch", [code_of(one) for one in listed], [0, 0, 0])
    await refused("empty batch", lambda: ain.sendTransactionBatch([]), 30401)
    body = TransactionBody(
        SetOperation("SET_VALUE", f"/apps/{name}/data/signed", "by hand"), -1, int(time.time() * 1000), 0
    )
    plain = TransactionBody(body.operation.__dict__, body.nonce, body.timestamp, 0)
    signature = ain.wallet.signTransaction(plain)
    sent = await ain.sendSignedTransaction(signature, plain)
    check("transaction signed before", code_of(sent) == 0 and sent["tx_hash"] == signature[:66], sent)
    other_body = TransactionBody(body.operation.__dict__, -1, body.timestamp + 1, 0)
    await refused("wrong signature", lambda: ain.sendSignedTransaction(signature, other_body), 30304)
    again = await ain.sendSignedTransaction(signature, plain)
    equal("the same transaction again", code_of(again), 10701)
    future = await ain.sendTransaction(
        TransactionInput(SetOperation("SET_VALUE", f"/apps/{name}/data/a", 1), nonce=9_999)
    )
    equal("nonce of the future", code_of(future), 10712)
    for one in listed:
        await final(ain, one["tx_hash"])
    check("batch is final", True)


async def staking(ain: Ain, me: str, name: str) -> None:
    ref = f"/staking/{name}/{me}/0/stake/{int(time.time() * 1000)}/value"
    sent = await ain.sendTransaction(TransactionInput(SetOperation("SET_VALUE", ref, 50), nonce=-1))
    equal("stake", code_of(sent), 0)
    equal("function of a stake", sent["result"]["func_results"]["_stake"]["code"], 0)
    account = f"/service_accounts/staking/{name}/{me}|0/balance"
    equal("staked balance", await ain.db.ref(account).getValue(), 50)
    usage = await ain.getStateUsage(name)
    equal("stake of the app", usage["staking"]["app"], 50)
    await final(ain, sent["tx_hash"])
    ref = f"/staking/{name}/{me}/0/unstake/{int(time.time() * 1000)}/value"
    sent = await ain.sendTransaction(TransactionInput(SetOperation("SET_VALUE", ref, 20), nonce=-1))
    equal("part of a stake comes back", code_of(sent), 0)
    equal("balance that stays staked", await ain.db.ref(account).getValue(), 30)


async def blocks(ain: Ain, node_address: str, me: str, other: str) -> None:
    deadline = time.monotonic() + FINAL_SECONDS_MAX
    while True:
        sent = await ain.wallet.transfer(toAddress=other, value=1, nonce=-1)
        pending = await ain.getPendingTransactions()
        used = await ain.getTransactionPoolSizeUtilization()
        # On a machine that stood still meanwhile it may be final already.
        if (me in pending and used["used"] >= 1) or time.monotonic() > deadline:
            break
    check("pending transactions", me in pending and isinstance(pending[me][0], list), list(pending))
    check("pool utilization", used["limit"] == 1000 and used["used"] >= 1, used)
    info = await final(ain, sent["tx_hash"])
    number, index = info["number"], info["index"]
    block = await ain.getBlockByNumber(number, True)
    equal("transaction in its block", block["transactions"][index]["hash"], sent["tx_hash"])
    hashes = await ain.getBlockByNumber(number)
    equal("block with hashes", hashes["transactions"][index], sent["tx_hash"])
    equal("block by hash", (await ain.getBlockByHash(block["hash"], True))["number"], number)
    equal("unknown block", await ain.getBlockByHash("0x" + "0" * 64), None)
    found = await ain.getTransactionByBlockNumberAndIndex(number, index)
    equal("transaction by number and index", found["transaction"]["hash"], sent["tx_hash"])
    found = await ain.getTransactionByBlockHashAndIndex(block["hash"], index)
    equal("transaction by hash and index", found["transaction"]["hash"], sent["tx_hash"])
    equal("unknown transaction", await ain.getTransactionByHash("0x" + "0" * 64), None)
    count = len(block["transactions"])
    equal("count by number", await ain.getBlockTransactionCountByNumber(number), count)
    equal("count by hash", await ain.getBlockTransactionCountByHash(block["hash"]), count)
    equal("validators by number", await ain.getValidatorsByNumber(number), block["validators"])
    equal("validators by hash", await ain.getValidatorsByHash(block["hash"]), block["validators"])
    equal("proposer by number", await ain.getProposerByNumber(number), block["proposer"])
    equal("proposer by hash", await ain.getProposerByHash(block["hash"]), block["proposer"])
    listed = await ain.getBlockList(number - 1, number + 1)
    equal("list of blocks", [one["number"] for one in listed], [number - 1, number])
    equal("chain of blocks", listed[1]["last_hash"], listed[0]["hash"])
    headers = await ain.getBlockHeadersList(number - 1, number + 1)
    check("list of headers", len(headers) == 2 and "transactions" not in headers[1], headers)
    validator = await ain.getValidatorInfo(node_address)
    check("validator", validator["isWhitelisted"] is True and validator["stake"] > 0, validator)
    last = await ain.getLastBlock()
    check("last block", last["number"] >= number, last["number"])
    check("last block number", await ain.getLastBlockNumber() >= last["number"])


async def day(url: str, node_address: str, key: str, other_key: str) -> None:
    ain = Ain(url)
    name = "py_app"
    await network(ain, node_address)
    me, other = await accounts(ain, key, other_key)
    await transfers(ain, me, other)
    await app(ain, me, other, name)
    await batches(ain, name)
    await staking(ain, me, name)
    await blocks(ain, node_address, me, other)
    print(json.dumps({"client": "ain-py", "version": version("ain-py"), "checks": checks}), flush=True)


asyncio.run(day(*sys.argv[1:5]))
