"""Shards: what a shard's reporter tells the chain above it, and how it opens the shard there.

The first node of a shard makes the app and the place of its reports on the parent chain before it serves. From then on
it reports the proof hash of every final block, many of them in one transaction, as soon as enough new ones are there.
A parent that does not answer is asked again later; nothing is lost, as it is always asked first how far it has got.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final, Protocol

import httpx2

from openresource.ledger.results import ALREADY_RECEIVED, has_failed
from openresource.ledger.transactions import sign_transaction
from openresource.node.ain.chain import AinChain
from openresource.node.ain.parameters import NodeParameters
from openresource.node.rpc import PROTOCOL_VERSION, encode
from openresource.primitives.encoding import parse_json
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import PrivateKey
from openresource.primitives.numbers import is_number
from openresource.primitives.paths import VALUES, encode_label, format_path, parse_path
from openresource.primitives.values import size_of

NO_SHARDING: Final = "NONE"
ANSWER_BYTES_MAX: Final = 1_000_000
RETRY_SECONDS: Final = 1.0
# Room that a report leaves below the largest transaction.
SIZE_SHARE: Final = 0.9
UNORDERED_NONCE: Final = -1
LOST_STATES: Final = ("FAILED", "TIMED_OUT")

Facts = dict[str, Any]
_log = logging.getLogger("openresource.node.ain.shards")


class ReportingNode(Protocol):
    """What the reports need of the node."""

    @property
    def parameters(self) -> NodeParameters: ...

    @property
    def chain(self) -> AinChain: ...

    def now_ms(self) -> int: ...

    def chain_id(self) -> int: ...


class ParentSilent(Refusal):
    template = "The parent chain at {url} does not answer: {reason}."
    way_out = "Start it, or name another of its nodes as parent_chain_poc in blockchain_params.json."


class ShardRefused(Refusal):
    template = "The parent chain does not open the shard {path}: {reason}."
    way_out = (
        "Begin the parent chain anew, or name another sharding_path or shard_owner in blockchain_params.json."
    )


def is_shard_reporter(chain: AinChain, key: PrivateKey) -> bool:
    """Whether this account reports for the chain, which then is a shard of another one."""
    if chain.parameter("sharding", "sharding_protocol") == NO_SHARDING:
        return False
    return str(chain.parameter("sharding", "shard_reporter")).lower() == key.address.lower()


class ShardReporter:
    """The reports of one node."""

    def __init__(self, node: ReportingNode, key: PrivateKey) -> None:
        self._node = node
        self._key = key
        seconds = float(node.parameters.number("DEFAULT_AXIOS_REQUEST_TIMEOUT")) / 1000
        self._client = httpx2.AsyncClient(timeout=seconds, trust_env=False, follow_redirects=False)
        self._sent_number = -1

    async def close(self) -> None:
        """Lets go of the connection to the parent chain."""
        await self._client.aclose()

    # -- opening the shard ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Makes the app and the place of the reports on the parent chain; waits for it as long as it takes."""
        sharding: Facts = dict(self._node.chain.final.get([VALUES, "blockchain_params", "sharding"]) or {})
        path, owner = str(sharding.get("sharding_path")), sharding.get("shard_owner")
        labels = parse_path(path)
        if len(labels) < 2:
            raise ShardRefused(path=path, reason="it names no app")
        app = labels[1]
        config = await self._patiently("ain_get", {"type": "GET_VALUE", "ref": f"/manage_app/{app}/config"})
        if config is None:
            await self._finalise(self._new_app(app, str(owner)), path)
        elif not isinstance(config, dict) or config.get("admin", {}).get(owner) is not True:
            raise ShardRefused(path=path, reason=f"{owner} does not administer the app {app}")
        await self._finalise(self._new_shard(path, sharding), path)
        _log.info("the shard is open", extra={"facts": {"path": path}})

    def _new_app(self, app: str, owner: str) -> Facts:
        admins = {owner: True, self._key.address: True}
        ref = f"/manage_app/{app}/create/{self._node.now_ms()}"
        return {"type": "SET_VALUE", "ref": ref, "value": {"admin": admins}}

    def _new_shard(self, path: str, sharding: Facts) -> Facts:
        """Values come before rules, as none may be written where rules stand below."""
        place = f"{path.rstrip('/')}/.shard"
        hash_of_block = f"{place}/proof_hash_map/$block_number"
        last = f"(getValue('{place}/latest_block_number') || 0)"
        reported = f"getValue('{place}/proof_hash_map/' + $block_number + '/proof_hash')"
        may_report = (
            f"auth.addr === '{self._key.address}' && newData !== null && "
            f"($block_number === String({last} + 1) || newData === {reported})"
        )
        kept = {
            "gc_max_siblings": sharding.get("max_shard_report"),
            "gc_num_siblings_deleted": sharding.get("num_shard_report_deleted"),
        }
        name = "_updateLatestShardReport"
        function = {name: {"function_type": "NATIVE", "function_id": name}}
        operations = [
            _set("VALUE", path, {".shard": {"sharding_enabled": True, "latest_block_number": -1}}),
            _set("VALUE", format_path(["sharding", "shard", encode_label(path)]), sharding),
            _set("FUNCTION", f"{hash_of_block}/proof_hash", {".function": function}),
            _set("RULE", hash_of_block, {".rule": {"state": kept}}),
            _set("RULE", f"{hash_of_block}/proof_hash", {".rule": {"write": may_report}}),
            _set("RULE", f"{place}/latest_block_number", {".rule": {"write": f"auth.fid === '{name}'"}}),
        ]
        return {"type": "SET", "op_list": operations}

    async def _finalise(self, operation: Facts, path: str) -> None:
        """Sends a transaction until the parent chain has it in a final block."""
        wire = self._signed(operation)
        tx_hash: str = wire["signature"][:66]
        while True:
            info = await self._patiently("ain_getTransactionByHash", {"hash": tx_hash})
            if isinstance(info, dict) and info.get("is_finalized") is True:
                receipt = info.get("receipt")
                if isinstance(receipt, dict) and has_failed(receipt, True):
                    raise ShardRefused(path=path, reason=json.dumps(receipt))
                return
            if not isinstance(info, dict) or info.get("state") in LOST_STATES:
                taken = await self._patiently("ain_sendSignedTransaction", wire)
                result = taken.get("result") if isinstance(taken, dict) else None
                # A node that does not serve yet gives no result.
                if isinstance(result, dict) and has_failed(result, True) and not _was_received(result):
                    raise ShardRefused(path=path, reason=json.dumps(result))
                if taken is None:
                    raise ShardRefused(path=path, reason="it does not take the transaction")
            await asyncio.sleep(RETRY_SECONDS)

    # -- reports ----------------------------------------------------------------------------------------------------

    async def report(self) -> None:
        """Reports the blocks that the parent chain does not know yet, if there are enough for a report."""
        chain = self._node.chain
        last = chain.final_number
        if last < self._sent_number + _count(chain.parameter("sharding", "reporting_period")):
            return
        place = f"{str(chain.parameter('sharding', 'sharding_path')).rstrip('/')}/.shard"
        try:
            ref = f"{place}/latest_block_number"
            confirmed = await self._ask("ain_get", {"type": "GET_VALUE", "ref": ref})
            if not is_number(confirmed):
                return
            operations = self._reports(place, int(confirmed) + 1, last)
            if operations:
                wire = self._signed({"type": "SET", "op_list": operations})
                await self._ask("ain_sendSignedTransaction", wire)
        except ParentSilent as silent:
            _log.warning("no report was sent", extra={"facts": {"reason": silent.message}})

    def _reports(self, place: str, first: int, last: int) -> list[Facts]:
        chain = self._node.chain
        size_max = SIZE_SHARE * _count(chain.parameter("resource", "tx_bytes_limit"))
        count_max = _count(chain.parameter("resource", "set_op_list_size_limit"))
        operations: list[Facts] = []
        size = 0
        for number in range(first, min(last, first + count_max - 1) + 1):
            block = chain.block(number)
            if block is None or size >= size_max:
                break
            ref = f"{place}/proof_hash_map/{number}/proof_hash"
            operations.append(_set("VALUE", ref, block["state_proof_hash"]))
            size += size_of(operations[-1])
            self._sent_number = number
        return operations

    # -- the parent chain -------------------------------------------------------------------------------------------

    def _signed(self, operation: Facts) -> Facts:
        body = {
            "operation": operation,
            "timestamp": self._node.now_ms(),
            "nonce": UNORDERED_NONCE,
            "gas_price": 0,
        }
        signed = sign_transaction(body, self._key, self._node.chain_id())
        return {"tx_body": body, "signature": signed.signature}

    async def _patiently(self, method: str, params: Facts) -> Any:
        told = ""
        while True:
            try:
                return await self._ask(method, params)
            except ParentSilent as silent:
                if silent.message != told:
                    told = silent.message
                    _log.warning("the shard waits", extra={"facts": {"reason": told}})
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self, method: str, params: Facts) -> Any:
        url = f"{self._node.chain.parameter('sharding', 'parent_chain_poc')}/json-rpc"
        asked = {
            "jsonrpc": "2.0",
            "method": method,
            "params": {**params, "protoVer": PROTOCOL_VERSION},
            "id": 0,
        }
        headers = {"Content-Type": "application/json"}
        try:
            request = self._client.build_request("POST", url, content=encode(asked), headers=headers)
            response = await self._client.send(request, stream=True)
            try:
                raw = b""
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > ANSWER_BYTES_MAX:
                        raise ParentSilent(url=url, reason="its answer is too long")
            finally:
                await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise ParentSilent(url=url, reason=str(error) or type(error).__name__) from error
        try:
            answered = parse_json(raw, bytes_max=ANSWER_BYTES_MAX)
        except Refusal as refusal:
            raise ParentSilent(url=url, reason=f"status {response.status_code}") from refusal
        outer = answered.get("result") if isinstance(answered, dict) else None
        if not isinstance(outer, dict):
            raise ParentSilent(url=url, reason="its answer has another form")
        return outer.get("result")


def _set(kind: str, ref: str, value: Any) -> Facts:
    return {"type": f"SET_{kind}", "ref": ref, "value": value}


def _was_received(result: Facts) -> bool:
    return bool(result.get("code") == ALREADY_RECEIVED)


def _count(value: Any) -> int:
    return int(value) if is_number(value) else 0
