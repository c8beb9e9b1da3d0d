"""A chain of our profile for tests: keys with money, a clock that the test moves, and transactions in one line."""

from __future__ import annotations

from typing import Any

from openresource import protocol
from openresource.ledger.draft import balance_labels
from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN
from openresource.ledger.machine import Inserted, Machine, SealedBlock
from openresource.ledger.transactions import Transaction, sign_transaction
from openresource.ledger.tree import Tree
from openresource.primitives.amounts import UAIN_PER_AIN, uain_of_number
from openresource.primitives.hashing import keccak
from openresource.primitives.keys import PrivateKey

GENESIS_MS = 1_800_000_000_000
CHAIN_ID = 100


def key_of(name: str) -> PrivateKey:
    """The same key for the same name."""
    return PrivateKey(keccak(name.encode()))


def genesis_document(*names: str, each_uain: int = 1000 * UAIN_PER_AIN, **parameters: Any) -> dict[str, Any]:
    """A genesis in which each name holds the same and the producer all the rest."""
    accounts = {key_of(name).address: each_uain for name in names}
    accounts[key_of("producer").address] = TOTAL_SUPPLY_UAIN - each_uain * len(names)
    return {
        "network": "local",
        "chain_id": CHAIN_ID,
        "timestamp_ms": GENESIS_MS,
        "producer": key_of("producer").address,
        "accounts": accounts,
        "parameters": parameters,
    }


class Chain:
    """A machine with a clock; every transaction goes into the open block, `seal` ends it."""

    def __init__(self, *names: str, tree: Tree | None = None, **parameters: Any) -> None:
        self.document = genesis_document(*names, **parameters)
        self.tree = Tree("canonical") if tree is None else tree
        self.machine: Machine = protocol.begin(self.document, self.tree)
        self.now_ms = GENESIS_MS
        self.nonce = 0
        self.sealed: list[SealedBlock] = []
        self.opening_changes: tuple[Any, ...] = ()

    def open(self, later_ms: int = 1000) -> None:
        """Opens a block if none is open."""
        if not self.machine.is_open:
            self.now_ms += later_ms
            self.opening_changes = self.machine.open_block(self.now_ms, key_of("producer").address)

    def transaction(self, name: str, operation: dict[str, Any], **fields: Any) -> Transaction:
        """A signed transaction; each gets a timestamp of its own within the replay window."""
        self.open()
        self.nonce += 1
        body = {
            "operation": operation,
            "nonce": fields.pop("nonce", -1),
            "timestamp": fields.pop("timestamp", self.now_ms + self.nonce % 1000),
            "gas_price": fields.pop("gas_price", 0),
            **fields,
        }
        return sign_transaction(body, key_of(name), CHAIN_ID)

    def run(self, name: str, operation: dict[str, Any], **fields: Any) -> Inserted:
        """Executes an operation."""
        return self.machine.insert(self.transaction(name, operation, **fields))

    def set(self, name: str, ref: str, value: Any, **fields: Any) -> Inserted:
        """SET_VALUE."""
        return self.run(name, {"type": "SET_VALUE", "ref": ref, "value": value}, **fields)

    def pay(self, name: str, target: str, amount: float, key: str, **fields: Any) -> Inserted:
        """A transfer to a named account."""
        path = f"/transfer/{key_of(name).address}/{key_of(target).address}/{key}/value"
        return self.set(name, path, amount, **fields)

    def create_app(self, name: str, app: str, *, is_public: bool = False) -> Inserted:
        """An app of which the name is the only admin."""
        value: dict[str, Any] = {"admin": {key_of(name).address: True}}
        if is_public:
            value["is_public"] = True
        return self.set(name, f"/manage_app/{app}/create/1", value)

    def seal(self) -> SealedBlock:
        """Seals the open block, an empty one if none is open."""
        self.open()
        sealed = self.machine.seal()
        self.sealed.append(sealed)
        return sealed

    def value(self, path: str) -> Any:
        """The pending value at a path."""
        return self.tree.get(["values", *[label for label in path.split("/") if label]])

    def balance(self, account: str) -> int:
        """What an account holds, in µAIN."""
        number: Any = self.tree.get(["values", *balance_labels(account)])
        return 0 if number is None else uain_of_number(number)

    def supply_uain(self) -> int:
        """The sum of everything that anybody holds."""
        accounts: Any = self.value("/accounts") or {}
        total = sum(uain_of_number(account.get("balance", 0)) for account in accounts.values())
        services: Any = self.value("/service_accounts") or {}
        for by_service in services.values():
            for by_key in by_service.values():
                total += sum(uain_of_number(account["balance"]) for account in by_key.values())
        return total
