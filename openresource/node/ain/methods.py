"""The JSON-RPC methods of AI Network's node by their names on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from openresource.ledger.blocks import HEADER_FIELDS
from openresource.node.ain.admin import Administration, Injection
from openresource.node.ain.chain import CHAIN_SYNCING
from openresource.node.ain.limits import WRITE_METHODS
from openresource.node.ain.queries import Queries, is_true
from openresource.node.ain.served import ServedNode
from openresource.node.ain.submission import Submission
from openresource.node.rpc import PROTOCOL_VERSION, Answer, Immediate, Method, Params, answer, check_version
from openresource.primitives.keys import checksum_address, is_address
from openresource.primitives.numbers import is_decimal_text, is_integer, is_integer_text, is_number
from openresource.primitives.paths import VALUES, balance_path, parse_path, service_account_name

NUMBER_CHARACTERS_MAX: Final = 40

Block = Mapping[str, Any]


class AinNodeMethods:
    """The methods of one node."""

    def __init__(self, node: ServedNode) -> None:
        self._node = node
        self.queries = Queries(node)
        self.submission = Submission(node)

    def methods(self) -> dict[str, Method]:
        """Those that may wait."""
        if not self._node.parameters.flag("ENABLE_JSON_RPC_API"):
            return {}
        submission = self.submission
        return {
            "ain_sendSignedTransaction": submission.single,
            "ain_sendSignedTransactionDryrun": submission.dry_run,
            "ain_sendSignedTransactionBatch": submission.batch,
        }

    def immediate(self) -> dict[str, Immediate]:
        """All others that this node has; without its API only what runs it and what peers need."""
        node = self._node
        methods = {**Administration(node).methods(), **Injection(node).methods()}
        methods["p2p_getPeerCandidateInfo"] = self.peer_candidate_info
        if node.events is not None:
            events = node.events
            methods["net_getEventHandlerNetworkInfo"] = lambda params: answer(events.network_info())
            methods["ain_getEventHandlerFilterInfo"] = lambda params: answer(events.filter_info())
            methods["ain_getEventHandlerChannelInfo"] = lambda params: answer(events.channel_info())
        if node.parameters.flag("ENABLE_JSON_RPC_API"):
            methods.update(
                {**self._of_network(), **self._of_accounts(), **self._of_blocks(), **self._of_state()}
            )
        return {name: self._timed(name, method) for name, method in methods.items()}

    def _of_network(self) -> dict[str, Immediate]:
        node = self._node
        return {
            "ain_getProtocolVersion": lambda params: answer(PROTOCOL_VERSION),
            "ain_checkProtocolVersion": check_version,
            "net_getNetworkId": lambda params: answer(node.chain.parameter("genesis", "network_id")),
            "net_getChainId": lambda params: answer(node.chain.parameter("genesis", "chain_id")),
            "net_listening": lambda params: answer(self._inbound_count() > 0),
            "net_peerCount": lambda params: answer(self._inbound_count()),
            "net_syncing": lambda params: answer(node.chain.node_state == CHAIN_SYNCING),
            "net_consensusStatus": lambda params: answer(node.consensus_status()),
            "net_rawConsensusStatus": lambda params: answer(node.raw_consensus_status()),
        }

    def _of_accounts(self) -> dict[str, Immediate]:
        return {
            "ain_getAddress": lambda params: answer(self.address()),
            "ain_getBalance": self.balance,
            "ain_getNonce": lambda params: answer(self.account_number(params, "nonce")),
            "ain_getTimestamp": lambda params: answer(self.account_number(params, "timestamp")),
            "ain_getValidatorInfo": self.validator_info,
            "ain_validateAppName": self.queries.validate_app_name,
        }

    def _of_blocks(self) -> dict[str, Immediate]:
        chain = self._node.chain
        methods: dict[str, Immediate] = {
            "ain_getLastBlock": lambda params: answer(chain.final_block),
            "ain_getLastBlockNumber": lambda params: answer(chain.final_number),
            "ain_getBlockByNumber": lambda params: self.block(params, "number"),
            "ain_getBlockByHash": lambda params: self.block(params, "hash"),
            "ain_getBlockList": lambda params: answer(self._span(params)),
            "ain_getBlockHeadersList": lambda params: answer(
                [{field: block[field] for field in HEADER_FIELDS} for block in self._span(params)]
            ),
            "ain_getPendingTransactions": self.pending_transactions,
            "ain_getTransactionPoolSizeUtilization": lambda params: answer(
                self.pool_utilization(params.get("address"))
            ),
            "ain_getTransactionByHash": lambda params: answer(chain.transaction_info(params.get("hash"))),
            "ain_getTransactionByBlockHashAndIndex": self.transaction_by_place,
            "ain_getTransactionByBlockNumberAndIndex": self.transaction_by_place,
        }
        for way in ("Number", "Hash"):
            key = way.lower()
            methods[f"ain_getBlockTransactionCountBy{way}"] = self._of_block(
                key, lambda block: len(block["transactions"])
            )
            methods[f"ain_getValidatorsBy{way}"] = self._of_block(key, lambda block: block["validators"])
            methods[f"ain_getProposerBy{way}"] = self._of_block(key, lambda block: block["proposer"])
        return methods

    def _of_state(self) -> dict[str, Immediate]:
        queries = self.queries
        methods: dict[str, Immediate] = {
            "ain_get": queries.get,
            "ain_getStateProof": lambda params: answer(queries.proof(params)),
            "ain_getProofHash": lambda params: answer(queries.proof_hash(params)),
            "ain_getStateInfo": lambda params: answer(queries.info(params)),
            "ain_getStateUsage": lambda params: answer(queries.usage(params)),
        }
        for kind in ("MATCH_FUNCTION", "MATCH_RULE", "MATCH_OWNER", "EVAL_RULE", "EVAL_OWNER"):
            verb, _, noun = kind.lower().partition("_")
            methods[f"ain_{verb}{noun.capitalize()}"] = self._asking(kind)
        return methods

    def _asking(self, kind: str) -> Immediate:
        return lambda params: answer(self.queries.ask(kind, params))

    def _timed(self, name: str, method: Immediate) -> Immediate:
        kind = "json_rpc_set" if name in WRITE_METHODS else "json_rpc_get"
        if name.endswith("NodeParam"):
            kind = kind.replace("json_rpc", "access_control")

        traffic, now_ms = self._node.traffic, self._node.now_ms

        def run(params: Params) -> Answer:
            begun_ms = now_ms()
            given = method(params)
            ended_ms = now_ms()
            traffic.add(kind, ended_ms - begun_ms, ended_ms)
            return given

        return run

    # Network and accounts.

    def _inbound_count(self) -> int:
        count: int = self._node.network_status()["connectionStatus"]["numInbound"]
        return count

    def peer_candidate_info(self, params: Params) -> Answer:
        """What peers ask each other before they connect."""
        node = self._node
        most = node.parameters.number("MAX_NUM_INBOUND_CONNECTION")
        return answer(
            {
                "address": self.address(),
                "isAvailableForConnection": most > self._inbound_count(),
                "networkStatus": node.network_status(),
                "peerCandidateJsonRpcUrlList": node.peer_urls(),
            }
        )

    def address(self) -> str | None:
        """The address of the node's account."""
        key = self._node.key
        return None if key is None else key.address

    def balance(self, params: Params) -> Answer:
        """The balance of an account, 0 if there is none; those of services are read as values."""
        account = params.get("address")
        if not isinstance(account, str) or not account:
            return answer(0)
        return answer(self._front(["accounts", *parse_path(account), "balance"]) or 0)

    def account_number(self, params: Params, name: str) -> Any:
        """The nonce or the timestamp of an account; -1 for what is no address."""
        address: Any = params.get("address")
        if not is_address(address):
            return -1
        state = self._node.chain.state(params.get("from") != "pending")
        return state.get([VALUES, "accounts", checksum_address(address), name]) or 0

    def validator_info(self, params: Params) -> Answer:
        """Whether somebody may propose blocks, and what they have at stake for it."""
        address = params.get("address")
        found: dict[str, Any] = {"address": address} if "address" in params else {}
        name = address if isinstance(address, str) else "undefined"
        stake_path = balance_path(service_account_name("staking", "consensus", f"{name}|0"))
        found["isWhitelisted"] = self._front(["consensus", "proposer_whitelist", name]) or False
        found["stake"] = self._front(parse_path(stake_path)) or 0
        return answer(found)

    def _front(self, labels: list[str]) -> Any:
        return self._node.chain.front.get([VALUES, *labels])

    # Blocks.

    def block(self, params: Params, key: str) -> Answer:
        """A block, by default with the hashes of its transactions alone; no result at all for an unknown one."""
        given = params.get(key)
        if (_number(given) is None) if key == "number" else not given:
            return answer(None)
        block = self.find_block(key, given)
        if block is None:
            return {}
        if not is_true(params.get("getFullTransactions")):
            block = {**block, "transactions": [one["hash"] for one in block["transactions"]]}
        return answer(block)

    def find_block(self, key: str, given: Any) -> Block | None:
        """A final block by `number` or `hash`."""
        if key == "hash":
            return self._node.chain.block_by_hash(given) if isinstance(given, str) else None
        number = _number(given)
        return self._node.chain.block(int(number)) if number is not None and is_integer(number) else None

    def _span(self, params: Params) -> list[dict[str, Any]]:
        length = int(self._node.parameters.number("CHAIN_SEGMENT_LENGTH"))
        return self._node.chain.blocks(_integer(params.get("from")), _integer(params.get("to")), length)

    def _of_block(self, key: str, part: Callable[[Block], Any]) -> Immediate:
        def method(params: Params) -> Answer:
            block = self.find_block(key, params.get(key))
            return answer(None if block is None else part(block))

        return method

    # Transactions.

    def pending_transactions(self, params: Params) -> Answer:
        """What waits, by account: a list that holds one list."""
        waiting = self._node.chain.pending_transactions()
        return answer({address: [listed] for address, listed in waiting.items()})

    def pool_utilization(self, address: object) -> dict[str, int]:
        """How full the pool is, in all or for one account."""
        return self._node.chain.pool.utilization(address if isinstance(address, str) else None)

    def transaction_by_place(self, params: Params) -> Answer:
        """A final transaction by its block and its place in it."""
        index: Any = params.get("index")
        number: Any = params.get("block_number")
        block: Block | None = None
        if "block_hash" in params:
            block = self.find_block("hash", params["block_hash"])
        elif is_integer(number) and number >= 0:
            block = self._node.chain.block(int(number))
        if block is None or not is_integer(index) or not 0 <= index < len(block["transactions"]):
            return answer(None)
        transaction = block["transactions"][int(index)]
        return answer({"transaction": transaction, "is_executed": True, "is_finalized": True})


def _number(given: Any) -> float | int | None:
    """A number, or a text that is one."""
    if is_number(given):
        return float(given) if isinstance(given, float) else int(given)
    if isinstance(given, str) and len(given) <= NUMBER_CHARACTERS_MAX:
        if is_integer_text(given):
            return int(given)
        if is_decimal_text(given):
            return float(given)
    return None


def _integer(given: Any) -> int | None:
    return int(given) if is_integer(given) else None
