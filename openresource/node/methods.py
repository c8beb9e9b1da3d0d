"""AI Network's JSON-RPC methods that read: versions, network, accounts, blocks, transactions, state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openresource.ledger.blocks import HEADER_FIELDS
from openresource.ledger.draft import balance_labels
from openresource.ledger.proofs import state_proof
from openresource.ledger.reads import (
    WHOLE,
    ReadOptions,
    TooManyBytes,
    TooManySiblings,
    check_found,
    shown,
    state_info,
)
from openresource.node.engine import EXECUTED, FAILED_IN_BLOCK, FINALIZED, PENDING_FAILED, Engine, Tracked
from openresource.node.evaluation import Evaluation
from openresource.node.rpc import (
    PROTOCOL_VERSION,
    Answer,
    Immediate,
    Method,
    Params,
    answer,
    check_version,
    refused,
)
from openresource.node.submission import Submission
from openresource.node.usage import state_usage
from openresource.primitives.keys import checksum_address, is_address
from openresource.primitives.numbers import is_integer, is_integer_text
from openresource.primitives.paths import (
    FUNCTIONS,
    OWNERS,
    RULES,
    VALUES,
    parse_path,
    valid_label,
    valid_service_name,
)

OPERATIONS_PER_GET_MAX = 50
BLOCKS_PER_LIST_MAX = 20
POOL_TRANSACTIONS_MAX = 5_000

_TREE_OF_TYPE = {"GET_VALUE": VALUES, "GET_RULE": RULES, "GET_FUNCTION": FUNCTIONS, "GET_OWNER": OWNERS}
# A read with nothing else in it asks for all there is, as most do.
_PLAIN = frozenset(("type", "ref", "is_final", "protoVer"))


class AinMethods:
    """The reading methods over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._evaluation = Evaluation(engine)

    def methods(self) -> dict[str, Method]:
        """Those that may wait, by their names on the wire."""
        submission = Submission(self._engine)
        return {
            "ain_sendSignedTransaction": submission.single,
            "ain_sendSignedTransactionDryrun": submission.dry_run,
            "ain_sendSignedTransactionBatch": submission.batch,
        }

    def immediate(self) -> dict[str, Immediate]:
        """All others."""
        methods: dict[str, Immediate] = {
            "ain_getProtocolVersion": lambda params: answer(PROTOCOL_VERSION),
            "ain_checkProtocolVersion": check_version,
            "net_getNetworkId": self.network_id,
            "net_getChainId": self.chain_id,
            "net_listening": lambda params: answer(False),
            "net_peerCount": lambda params: answer(0),
            "net_syncing": lambda params: answer(False),
            "net_consensusStatus": self.consensus_status,
            "net_rawConsensusStatus": self.raw_consensus_status,
            "ain_getAddress": lambda params: answer(self._engine.producer_address),
            "ain_getBootstrapPubKey": lambda params: answer(None),
            "ain_getBalance": self.balance,
            "ain_getNonce": lambda params: self.account_number(params, "nonce"),
            "ain_getTimestamp": lambda params: self.account_number(params, "timestamp"),
            "ain_getLastBlock": lambda params: answer(self._engine.last_block),
            "ain_getLastBlockNumber": lambda params: answer(self._engine.last_height()),
            "ain_getBlockByNumber": lambda params: self.block(params, "number"),
            "ain_getBlockByHash": lambda params: self.block(params, "hash"),
            "ain_getBlockList": self.block_list,
            "ain_getBlockHeadersList": self.block_headers_list,
            "ain_getValidatorInfo": self.validator_info,
            "ain_getPendingTransactions": self.pending_transactions,
            "ain_getTransactionPoolSizeUtilization": self.pool_utilization,
            "ain_getTransactionByHash": self.transaction,
            "ain_getTransactionByBlockHashAndIndex": self.transaction_by_place,
            "ain_getTransactionByBlockNumberAndIndex": self.transaction_by_place,
            "ain_get": self.get,
            "ain_getStateProof": self.state_proof,
            "ain_getProofHash": self.proof_hash,
            "ain_getStateInfo": self.state_info,
            "ain_getStateUsage": self.state_usage,
            "ain_validateAppName": self.validate_app_name,
        }
        for way in ("Number", "Hash"):
            key = way.lower()
            methods[f"ain_getBlockTransactionCountBy{way}"] = self._of_block(
                key, lambda block: len(block["transactions"])
            )
            methods[f"ain_getValidatorsBy{way}"] = self._of_block(key, lambda block: block["validators"])
            methods[f"ain_getProposerBy{way}"] = self._of_block(key, lambda block: block["proposer"])
        for kind, question in self._evaluation.by_type.items():
            verb, _, noun = kind.lower().partition("_")
            methods[f"ain_{verb}{noun.capitalize()}"] = _answering(question)
        return methods

    # Network.

    def network_id(self, params: Params) -> Answer:
        return answer(self._genesis_parameter("network_id"))

    def chain_id(self, params: Params) -> Answer:
        return answer(self._genesis_parameter("chain_id"))

    def _genesis_parameter(self, name: str) -> Any:
        found = self._final([VALUES, "blockchain_params", "genesis", name])
        return self._engine.machine.network.chain_id if found is None else found

    def consensus_status(self, params: Params) -> Answer:
        block = self._engine.last_block
        validators = {
            address: {**facts, "voting_right": True} for address, facts in block.get("validators", {}).items()
        }
        return answer(
            {
                "health": not self._engine.is_disk_full,
                "state": "RUNNING",
                "stateNumeric": 1,
                "epoch": block["epoch"],
                "isInEpochTransition": False,
                "validators": validators,
                "globalTimeSyncStatus": None,
            }
        )

    def raw_consensus_status(self, params: Params) -> Answer:
        block = self._engine.last_block
        return answer(
            {"consensus": {"epoch": block["epoch"], "proposer": block["proposer"], "state": "RUNNING"}}
        )

    # Accounts.

    def balance(self, params: Params) -> Answer:
        account = params.get("address")
        if not isinstance(account, str) or not account:
            return answer(0)
        labels = balance_labels(account) if account.count("|") >= 2 else ("accounts", account, "balance")
        return answer(self._final([VALUES, *labels]) or 0)

    def account_number(self, params: Params, name: str) -> Answer:
        address: Any = params.get("address")
        if not is_address(address):
            return answer(-1)
        view = self._engine.pending() if params.get("from") == "pending" else self._engine.final()
        return answer(view.get([VALUES, "accounts", checksum_address(address), name]) or 0)

    # Blocks.

    def block(self, params: Params, key: str) -> Answer:
        given = params.get(key)
        number = _number(given) if key == "number" else None
        if (key == "number" and number is None) or (key == "hash" and not isinstance(given, str)):
            return answer(None)
        block = self._find_block(key, given)
        if block is None:
            return {}
        if not _is_true(params.get("getFullTransactions")):
            block = {**block, "transactions": [one["hash"] for one in block["transactions"]]}
        return answer(block)

    def block_list(self, params: Params) -> Answer:
        return answer([self._engine.block(number) for number in self._span(params)])

    def block_headers_list(self, params: Params) -> Answer:
        blocks = [self._engine.block(number) for number in self._span(params)]
        return answer(
            [{field: block[field] for field in HEADER_FIELDS} for block in blocks if block is not None]
        )

    def _span(self, params: Params) -> range:
        last = self._engine.last_height()
        start: Any = params.get("from")
        end: Any = params.get("to")
        first = int(start) if is_integer(start) and start >= 0 else 0
        behind = int(end) if is_integer(end) and end >= 0 else last + 1
        if first == last + 1:
            return range(last, last + 1)
        return range(first, min(behind, last + 1, first + BLOCKS_PER_LIST_MAX))

    def _find_block(self, key: str, given: Any) -> Mapping[str, Any] | None:
        if key == "hash":
            return self._engine.block_by_hash(given) if isinstance(given, str) else None
        number = _number(given)
        return self._engine.block(int(number)) if number is not None and is_integer(number) else None

    def _of_block(self, key: str, part: Callable[[Mapping[str, Any]], Any]) -> Immediate:
        def method(params: Params) -> Answer:
            block = self._find_block(key, params.get(key))
            return answer(None if block is None else part(block))

        return method

    def validator_info(self, params: Params) -> Answer:
        address = params.get("address")
        found: dict[str, Any] = {} if address is None else {"address": address}
        labels = [VALUES, "consensus", "proposer_whitelist", str(address)]
        known = self._engine.last_block["validators"].get(address, {}) if isinstance(address, str) else {}
        found["isWhitelisted"] = self._final(labels) is True or bool(known)
        found["stake"] = known.get("stake", 0)
        return answer(found)

    # Transactions.

    def pending_transactions(self, params: Params) -> Answer:
        found: dict[str, list[list[dict[str, Any]]]] = {}
        for tracked in self._engine.pending_transactions():
            transaction = tracked.inserted.transaction
            listed = found.setdefault(transaction.address, [[]])
            extra = {"created_at": tracked.executed_at_ms, "executed_at": tracked.executed_at_ms}
            listed[0].append({**transaction.to_json(), "extra": extra})
        return answer(found)

    def pool_utilization(self, params: Params) -> Answer:
        address = params.get("address")
        transactions = [one.inserted.transaction for one in self._engine.pending_transactions()]
        if isinstance(address, str):
            transactions = [one for one in transactions if one.address == address]
        free = sum(1 for one in transactions if not one.gas_price)
        return answer(
            {
                "limit": POOL_TRANSACTIONS_MAX,
                "used": len(transactions),
                "free_limit": POOL_TRANSACTIONS_MAX,
                "free_used": free,
            }
        )

    def transaction(self, params: Params) -> Answer:
        tx_hash = params.get("hash")
        return answer(self.transaction_info(tx_hash) if isinstance(tx_hash, str) else None)

    def transaction_info(self, tx_hash: str) -> dict[str, Any] | None:
        """What this node knows about a transaction; None if nothing."""
        engine = self._engine
        place = engine.place_of(tx_hash)
        if place is None:
            tracked = engine.known(tx_hash)
            return None if tracked is None else _pending_info(tracked)
        height, index = place
        block = engine.block(height)
        assert block is not None, "a transaction's place is in a block that is final"
        wire = block["transactions"][index]
        receipt = block["receipts"][index]
        result, has_failed = engine.outcome_of(height, index)
        return {
            "state": FAILED_IN_BLOCK if has_failed else FINALIZED,
            "number": height,
            "index": index,
            "address": wire["address"],
            "timestamp": wire["tx_body"]["timestamp"],
            "is_executed": True,
            "is_finalized": True,
            "tracked_at": block["timestamp"],
            "executed_at": block["timestamp"],
            "finalized_at": block["timestamp"],
            "exec_result": result,
            "transaction": wire,
            "receipt": receipt,
        }

    def transaction_by_place(self, params: Params) -> Answer:
        index: Any = params.get("index")
        number: Any = params.get("block_number")
        block: Mapping[str, Any] | None = None
        if "block_hash" in params:
            block = self._find_block("hash", params["block_hash"])
        elif is_integer(number) and number >= 0:
            block = self._engine.block(int(number))
        if block is None or not is_integer(index) or not 0 <= index < len(block["transactions"]):
            return answer(None)
        transaction = block["transactions"][int(index)]
        return answer({"transaction": transaction, "is_executed": True, "is_finalized": True})

    # State.

    def get(self, params: Params) -> Answer:
        kind = params.get("type")
        if isinstance(kind, str) and kind in _TREE_OF_TYPE:
            return self._get_one(params, _TREE_OF_TYPE[kind])
        if kind != "GET":
            return refused(30001, "Invalid get operation")
        listed = params.get("op_list")
        if not isinstance(listed, list) or not listed:
            return refused(30006, "Invalid op_list given")
        if len(listed) > OPERATIONS_PER_GET_MAX:
            return refused(
                30004,
                "The request exceeds the max op_list size limit of the requested node: "
                f"{len(listed)} > {OPERATIONS_PER_GET_MAX}",
            )
        found: list[Any] = []
        for operation in listed:
            one = self._get_listed(operation if isinstance(operation, dict) else {})
            if one is not None:
                found.append(one.get("result"))
        return answer(found)

    def _get_listed(self, operation: Params) -> Answer | None:
        kind = operation.get("type", "GET_VALUE")
        if not isinstance(kind, str):
            return None
        if kind in self._evaluation.by_type:
            return answer(self._evaluation.by_type[kind](operation))
        return self._get_one(operation, _TREE_OF_TYPE[kind]) if kind in _TREE_OF_TYPE else None

    def _get_one(self, params: Params, tree: str) -> Answer:
        options = WHOLE if params.keys() <= _PLAIN else read_options(params)
        view = self._engine.final() if _is_true(params.get("is_final")) else self._engine.pending()
        found = view.node([tree, *parse_path(params.get("ref"))])
        try:
            check_found(view.root, found, options)
        except TooManyBytes as refusal:
            return refused(30002, refusal.message)
        except TooManySiblings as refusal:
            return refused(30003, refusal.message)
        return answer(shown(found, options, self._version() if options.include_version else ""))

    def state_proof(self, params: Params) -> Answer:
        return answer(state_proof(self._engine.final(), parse_path(params.get("ref"))))

    def proof_hash(self, params: Params) -> Answer:
        return answer(self._engine.final().hash_of(parse_path(params.get("ref"))))

    def state_info(self, params: Params) -> Answer:
        return answer(state_info(self._engine.final(), parse_path(params.get("ref")), self._version()))

    def state_usage(self, params: Params) -> Answer:
        name = params.get("app_name")
        return answer(state_usage(self._engine.final(), name) if isinstance(name, str) and name else None)

    def validate_app_name(self, params: Params) -> Answer:
        name = params.get("app_name", "undefined")
        is_text = isinstance(name, str) and "app_name" in params
        if not is_text or not valid_label(name):
            return _invalid_name(30601, f"Invalid app name for state label: {name}")
        if not valid_service_name(name, True):
            return _invalid_name(30602, f"Invalid app name for service name: {name}")
        if self._final([VALUES, "manage_app", name]) is not None:
            return _invalid_name(30603, f"App name already in use: {name}")
        return {"is_valid": True, "result": True, "code": 0}

    def _final(self, labels: list[str]) -> Any:
        return self._engine.final().get(labels)

    def _version(self) -> str:
        return f"NODE:{self._engine.last_height()}"


def read_options(params: Params) -> ReadOptions:
    """How much to show, as clients say it."""
    end_label = params.get("last_end_label")
    return ReadOptions(
        is_shallow=_is_true(params.get("is_shallow")),
        is_partial=_is_true(params.get("is_partial")),
        last_end_label=end_label if isinstance(end_label, str) else None,
        include_version=_is_true(params.get("include_version")),
        include_tree_info=_is_true(params.get("include_tree_info")),
        include_proof=_is_true(params.get("include_proof")),
    )


def _pending_info(tracked: Tracked) -> dict[str, Any]:
    inserted = tracked.inserted
    return {
        "state": PENDING_FAILED if inserted.has_failed else EXECUTED,
        "number": -1,
        "index": inserted.position,
        "address": inserted.transaction.address,
        "timestamp": inserted.transaction.timestamp,
        "is_executed": not inserted.has_failed,
        "is_finalized": False,
        "tracked_at": tracked.executed_at_ms,
        "executed_at": tracked.executed_at_ms,
        "finalized_at": -1,
        "exec_result": inserted.result,
        "transaction": inserted.transaction.to_json(),
    }


def _invalid_name(code: int, message: str) -> Answer:
    return {"is_valid": False, "result": False, "code": code, "message": message}


def _number(given: Any) -> float | int | None:
    """A number, or a text that is one."""
    if isinstance(given, bool):
        return None
    if isinstance(given, int | float):
        return given
    if isinstance(given, str) and is_integer_text(given) and len(given) < 16:
        return int(given)
    return None


def _is_true(given: object) -> bool:
    return given is True or given == "true"


def _answering(question: Callable[[Params], Any]) -> Immediate:
    def method(params: Params) -> Answer:
        return answer(question(params))

    return method
