"""The first block of a network of AI Network's kind: transactions made from its configuration, signed and executed.

It needs the keys of the owner and of the first accounts, so it makes only networks whose keys one has, such as local ones;
of the public networks one has the block itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from openresource.ledger.blocks import build_block
from openresource.ledger.draft import NetworkDomain
from openresource.ledger.execution import Executor
from openresource.ledger.genesis import write_blank_state
from openresource.ledger.profile import Network
from openresource.ledger.receipts import receipt_of
from openresource.ledger.state import State
from openresource.ledger.transactions import SET, SET_VALUE, UNORDERED_NONCE, Transaction, sign_transaction
from openresource.ledger.tree import Tree
from openresource.primitives.keys import PrivateKey
from openresource.primitives.numbers import to_double

NO_SHARDING: Final = "NONE"
LOCKUP_MS: Final = 604_800_000
STATE_PARAMETERS: Final = ("token", "consensus", "genesis", "resource", "reward", "sharding")

Wire = dict[str, Any]


class GenesisAccounts:
    """Who owns a new network and who gets its first coins, with the keys that sign."""

    __slots__ = ("others", "owner")

    def __init__(self, owner: PrivateKey, others: Sequence[tuple[PrivateKey, float | int]]) -> None:
        self.owner: PrivateKey = owner
        self.others: Sequence[tuple[PrivateKey, float | int]] = others


class GenesisTrees:
    """The first functions, rules and owners, as a configuration has them."""

    __slots__ = ("functions", "owners", "rules")

    def __init__(
        self, functions: Mapping[str, Any], rules: Mapping[str, Any], owners: Mapping[str, Any]
    ) -> None:
        self.functions: Mapping[str, Any] = functions
        self.rules: Mapping[str, Any] = rules
        self.owners: Mapping[str, Any] = owners


def ain_genesis_block(network: Network, accounts: GenesisAccounts, trees: GenesisTrees) -> dict[str, Any]:
    """The genesis block of a network's parameters."""
    parameters: Mapping[str, Any] = network.parameters
    timestamp: int = parameters["genesis"]["genesis_timestamp"]
    tree = Tree("ain")
    write_blank_state(tree)
    executor = Executor(network, State(tree), NetworkDomain(network.chain_id, ""))
    wires: list[Wire] = []
    receipts: list[dict[str, Any]] = []
    for transaction in _transactions(network, accounts, trees, timestamp):
        execution = executor.execute(transaction, 0, timestamp, timestamp, skip_fees=True, restore=False)
        wires.append(transaction.to_json())
        receipts.append(receipt_of(execution.result))
    state_hash = tree.root_hash()
    assert state_hash is not None, "the genesis transactions have written"
    return build_block(
        last_hash="",
        last_votes=[],
        evidence={},
        transactions=wires,
        receipts=receipts,
        number=0,
        epoch=0,
        timestamp=timestamp,
        state_proof_hash=state_hash,
        proposer=accounts.owner.address,
        validators=dict(parameters["consensus"]["genesis_validators"]),
        gas_amount_total=0,
        gas_cost_total=to_double(0),
    )


def _transactions(
    network: Network, accounts: GenesisAccounts, trees: GenesisTrees, timestamp: int
) -> list[Transaction]:
    parameters: Mapping[str, Any] = network.parameters
    owner = accounts.owner
    is_sharded = _is_sharded(parameters)

    def signed(key: PrivateKey, operation: dict[str, Any]) -> Transaction:
        body = {"nonce": UNORDERED_NONCE, "timestamp": timestamp, "gas_price": 0, "operation": operation}
        return sign_transaction(body, key, network.chain_id)

    first = [
        {"type": SET_VALUE, "ref": "/", "value": _values(parameters, owner.address)},
        {"type": "SET_FUNCTION", "ref": "/", "value": dict(trees.functions)},
        {"type": "SET_RULE", "ref": "/", "value": dict(trees.rules)},
        {"type": "SET_OWNER", "ref": "/", "value": _owners(parameters, accounts, trees.owners)},
    ]
    count: int = parameters["genesis"]["num_genesis_accounts"]
    transfers = [
        {"type": SET_VALUE, "ref": f"/transfer/{owner.address}/{key.address}/{index}/value", "value": balance}
        for index, (key, balance) in enumerate(accounts.others[:count])
    ]
    admins = {owner.address: True}
    if is_sharded:
        admins[accounts.others[0][0].address] = True
    app = {"admin": admins, "service": {"staking": {"lockup_duration": LOCKUP_MS}}}
    made = [
        signed(owner, {"type": SET, "op_list": first}),
        signed(owner, {"type": SET, "op_list": transfers}),
        signed(owner, {"type": SET_VALUE, "ref": f"/manage_app/consensus/create/{timestamp}", "value": app}),
    ]
    validators: Mapping[str, Any] = parameters["consensus"]["genesis_validators"]
    for index, address in enumerate(validators):
        ref = f"/staking/consensus/{address}/0/stake/{timestamp}/value"
        stake = {"type": SET_VALUE, "ref": ref, "value": validators[address]["stake"]}
        made.append(signed(accounts.others[index][0], stake))
    return made


def _values(parameters: Mapping[str, Any], owner: str) -> dict[str, Any]:
    consensus: Mapping[str, Any] = parameters["consensus"]
    urls: Any = parameters["resource"]["default_developers_url_whitelist"]
    return {
        "accounts": {owner: {"balance": parameters["token"]["total_supply"]}},
        "consensus": {
            "proposer_whitelist": consensus["genesis_proposer_whitelist"],
            "validator_whitelist": consensus["genesis_validator_whitelist"],
        },
        "developers": {
            "rest_functions": {"user_whitelist": {owner: True}, "url_whitelist": {owner: urls}},
        },
        "blockchain_params": {name: parameters[name] for name in STATE_PARAMETERS},
    }


def _owners(
    parameters: Mapping[str, Any], accounts: GenesisAccounts, base: Mapping[str, Any]
) -> dict[str, Any]:
    owner = accounts.owner.address
    everything, nothing = _permissions(True, True), _permissions(False, False)
    no_branches = _permissions(False, True)
    closed = _owned({owner: no_branches, "*": nothing})
    own = _owned({owner: everything})
    bridge = _owned({owner: everything, "*": _permissions(True, False)})
    for network, chains in parameters["token"].get("bridge", {}).items():
        for chain, tokens in chains.items():
            for token in tokens:
                bridge.setdefault(network, {}).setdefault(chain, {})[token] = dict(own)
    blockchain: dict[str, Any] = {**own, "token": {"bridge": bridge}}
    if _is_sharded(parameters):
        reporter = accounts.others[0][0].address
        blockchain["sharding"] = _owned({owner: no_branches, reporter: no_branches, "*": nothing})
    return {
        **base,
        **_owned({owner: everything, "*": nothing}),
        "consensus": {"proposer_whitelist": closed, "validator_whitelist": dict(closed)},
        "developers": {"rest_functions": dict(own)},
        "blockchain_params": blockchain,
    }


def _is_sharded(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters["sharding"]["sharding_protocol"] != NO_SHARDING)


def _permissions(branch: bool, rest: bool) -> dict[str, bool]:
    return {"branch_owner": branch, "write_function": rest, "write_owner": rest, "write_rule": rest}


def _owned(owners: dict[str, Any]) -> dict[str, Any]:
    return {".owner": {"owners": owners}}
