"""The first block: a state made of a document, and a block without transactions that names its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openresource.ledger.blocks import build_block
from openresource.ledger.draft import balance_labels
from openresource.ledger.tree import Tree
from openresource.primitives.amounts import UAIN_PER_AIN, ain_number
from openresource.primitives.errors import Refusal
from openresource.primitives.keys import is_checksum_address
from openresource.primitives.limits import CHAIN_ID_MAX
from openresource.primitives.numbers import is_integer

TOTAL_SUPPLY_UAIN: Final = 700_000_000 * UAIN_PER_AIN
ACCOUNTS_MAX: Final = 10_000


class InvalidGenesis(Refusal):
    template = "The genesis document is not valid: {reason}."
    way_out = "It names network, chain_id, timestamp_ms, producer, and accounts that hold 700,000,000 AIN in µAIN together."


@dataclass(frozen=True, slots=True)
class GenesisDocument:
    """What distinguishes one network from another of the same kind."""

    network: str
    chain_id: int
    timestamp_ms: int
    producer: str
    accounts: dict[str, int]
    parameters: dict[str, dict[str, Any]]


def read_genesis(document: Any) -> GenesisDocument:
    """A genesis document from outside."""
    if not isinstance(document, Mapping):
        raise InvalidGenesis(reason="it is not an object")
    known = {"network", "chain_id", "timestamp_ms", "producer", "accounts", "parameters"}
    unknown = sorted(set(document) - known)
    if unknown:
        raise InvalidGenesis(reason=f"{unknown[0]} is not a field of it")
    network: Any = document.get("network")
    chain_id: Any = document.get("chain_id")
    timestamp_ms: Any = document.get("timestamp_ms")
    producer: Any = document.get("producer")
    if not isinstance(network, str) or not network:
        raise InvalidGenesis(reason="network is not a name")
    if not is_integer(chain_id) or not 0 <= chain_id <= CHAIN_ID_MAX:
        raise InvalidGenesis(reason=f"chain_id is not an integer up to {CHAIN_ID_MAX}")
    if not is_integer(timestamp_ms) or timestamp_ms <= 0:
        raise InvalidGenesis(reason="timestamp_ms is not a time")
    if not is_checksum_address(producer):
        raise InvalidGenesis(reason="producer is not a checksum address")
    return GenesisDocument(
        network,
        int(chain_id),
        int(timestamp_ms),
        producer,
        _read_accounts(document.get("accounts")),
        _read_parameters(document.get("parameters", {})),
    )


def genesis_block(
    document: GenesisDocument,
    tree: Tree,
    values: Mapping[str, Any],
    rules: Mapping[str, Any],
    functions: Mapping[str, Any],
    owners: Mapping[str, Any],
    validators: dict[str, Any],
) -> dict[str, Any]:
    """Writes the first state into an empty tree and makes block 0; the balances come from the document."""
    for root, content in (("owners", owners), ("rules", rules), ("functions", functions), ("values", values)):
        tree.write([root], dict(content))
    for address, amount_uain in document.accounts.items():
        tree.write(["values", *balance_labels(address)], ain_number(amount_uain))
    state_hash = tree.root_hash()
    assert state_hash is not None
    return build_block(
        last_hash="",
        last_votes=[],
        evidence={},
        transactions=[],
        receipts=[],
        number=0,
        epoch=0,
        timestamp=document.timestamp_ms,
        state_proof_hash=state_hash,
        proposer=document.producer,
        validators=validators,
        gas_amount_total=0,
        gas_cost_total=0,
    )


def write_blank_state(tree: Tree) -> None:
    """AI Network's state before its genesis transactions: anybody may do anything."""
    anybody = {"branch_owner": True, "write_function": True, "write_owner": True, "write_rule": True}
    tree.write(["owners"], {".owner": {"owners": {"*": anybody}}})
    tree.write(["rules"], {".rule": {"write": True}})


def config_tree(entries: Mapping[str, Any], label: str) -> dict[str, Any]:
    """A tree of rules, functions or owners from a table of path → config; `label` is `.rule` and so on."""
    tree: dict[str, Any] = {}
    for path, config in entries.items():
        node = tree
        for part in path.split("/"):
            if part:
                node = node.setdefault(part, {})
        node[label] = config
    return tree


def merged_parameters(base: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by category and name; later tables win."""
    merged: dict[str, Any] = {category: dict(named) for category, named in base.items()}
    for table in more:
        for category, named in table.items():
            merged.setdefault(category, {}).update(named)
    return merged


def _read_accounts(accounts: Any) -> dict[str, int]:
    if not isinstance(accounts, Mapping) or not 0 < len(accounts) <= ACCOUNTS_MAX:
        raise InvalidGenesis(reason=f"accounts does not hold 1 to {ACCOUNTS_MAX} accounts")
    total_uain = 0
    for address, amount_uain in accounts.items():
        if not is_checksum_address(address):
            raise InvalidGenesis(reason=f"{address} is not a checksum address")
        if not isinstance(amount_uain, int) or isinstance(amount_uain, bool) or amount_uain <= 0:
            raise InvalidGenesis(reason=f"the balance of {address} is not a whole number of µAIN")
        total_uain += amount_uain
    if total_uain != TOTAL_SUPPLY_UAIN:
        raise InvalidGenesis(reason=f"the accounts hold {total_uain} µAIN together, not {TOTAL_SUPPLY_UAIN}")
    return dict(accounts)


def _read_parameters(parameters: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(parameters, Mapping):
        raise InvalidGenesis(reason="parameters is not an object")
    for category, named in parameters.items():
        if not isinstance(named, Mapping) or not named:
            raise InvalidGenesis(reason=f"the parameters of {category} are not an object")
        for name, value in named.items():
            if not isinstance(value, bool | int | float | str):
                raise InvalidGenesis(reason=f"the parameter {category}/{name} is not a plain value")
    return {category: dict(named) for category, named in parameters.items()}
