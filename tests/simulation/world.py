"""Random people on a random chain: what they may find there, and the transactions that they send."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from openresource import protocol
from openresource.ledger.draft import NetworkDomain
from openresource.ledger.execution import Executor
from openresource.ledger.genesis import TOTAL_SUPPLY_UAIN, write_blank_state
from openresource.ledger.machine import Machine
from openresource.ledger.state import State
from openresource.ledger.transactions import trusted_transaction
from openresource.ledger.tree import Tree
from openresource.primitives.keys import PrivateKey
from tests.simulation.execution import Task, Terms
from tests.simulation.genesis import genesis_rules, is_admin
from tests.simulation.rules import NoRule, Rule, Seen, Throws, is_number

VECTORS = FilePath(__file__).resolve().parents[1] / "vectors" / "ain" / "genesis"
PEOPLE = 8
APPS = ("alpha", "beta", "gamma_2", "Delta")
LABELS = ("a", "b", "c", "1", "2", "10", "ü", "list", "é|x")
BEGINNINGS: tuple[tuple[str, str, Any], ...] = (
    ("SET_VALUE", "/manage_app/alpha/create/1", "app"),
    ("SET_VALUE", "/manage_app/beta/create/1", "app"),
    (
        "SET_RULE",
        "/apps/alpha/list/$k",
        {".rule": {"write": True, "state": {"gc_max_siblings": 10, "gc_num_siblings_deleted": 10}}},
    ),
    (
        "SET_FUNCTION",
        "/apps/beta/a/$k",
        {".function": {"_saveLastTx": {"function_type": "NATIVE", "function_id": "_saveLastTx"}}},
    ),
)
AIN_START_MS = 1_700_000_000_000
OWN_START_MS = 1_800_000_000_000


class World:
    """A chain at its beginning, and a source of transactions for it."""

    def __init__(self, profile: str, seed: int) -> None:
        self.random = random.Random(f"{profile} {seed}")
        self.seed = seed
        self.is_own = profile == "openresource"
        self.people = [
            PrivateKey(hashlib.sha256(f"person {number}".encode()).digest()).address
            for number in range(PEOPLE)
        ]
        self.machine, self.tree = _own_chain(self.people) if self.is_own else _ain_chain()
        self.now_ms = max(OWN_START_MS if self.is_own else AIN_START_MS, self.machine.tip["timestamp"]) + 1000
        if not self.is_own:
            accounts = json.loads((VECTORS / "test_accounts.json").read_text())["others"]
            self.people = [one["address"] for one in accounts[1:4]] + self.people[3:]
        self._tighten(seed)
        self.count = 0
        self.nonces: dict[str, int] = {}
        self.texts = self._app_rules()

    def _tighten(self, seed: int) -> None:
        """In some worlds there is room for little, so that limits and budgets are met."""
        resource = ["values", "blockchain_params", "resource"]
        used = self.tree.root.bytes
        tight: dict[int, dict[str, Any]] = {
            1: {"state_tree_bytes_limit": used + 20_000, "service_state_budget_ratio": 1},
            2: {"state_tree_bytes_limit": 2 * used, "service_state_budget_ratio": 0.55},
            3: {
                "state_tree_bytes_limit": 10 * used,
                "apps_state_budget_ratio": 0.01,
                "free_state_budget_ratio": 1,
            },
            4: {"state_tree_bytes_limit": 10 * used, "free_state_budget_ratio": 0.01},
            5: {"set_op_list_size_limit": 3, "state_tree_height_limit": 11},
        }
        for name, value in tight.get(seed % 8, {}).items():
            self.tree.write([*resource, name], value)

    def terms(self) -> Terms:
        """What the model has to know about this chain."""
        admins: Any = self.tree.get(["values", "manage_app", "consensus", "config", "admin"])
        natives = protocol.KERNEL_NATIVES if self.is_own else protocol.AIN_NATIVES
        known = KnownRules(genesis_rules(self.tree, self.is_own))
        known.update(self.texts)
        network = self.machine.network
        names = frozenset(natives) | frozenset(network.natives)
        return Terms(
            self.is_own,
            set(admins or {}),
            names,
            known,
            network.profile.replay_window_ms,
            frozenset(network.kernel_natives),
        )

    def next_task(self) -> Task:
        """A transaction of somebody."""
        chance = self.random
        self.count += 1
        self.now_ms += chance.choice((0, 1, 1, 1, 2, 30))
        if self.count <= len(BEGINNINGS):
            return self._task(self.people[0], self._beginning(*BEGINNINGS[self.count - 1]))
        address = self.people[min(chance.randrange(PEOPLE), chance.randrange(PEOPLE))]
        nonce = chance.choice((-1, -1, -1, -2, -2) + (self.nonces.get(address, 0),) * 4)
        if chance.random() < 0.02:
            nonce = 7
        body: dict[str, Any] = {
            "nonce": nonce,
            "timestamp": self.now_ms + (0 if chance.random() < 0.9 else chance.choice((-5, 3, 400_000))),
            "gas_price": chance.choice((0, 0, 0, 1, 1, 1, 1, 500, 500)) if chance.random() < 0.98 else 2.5,
            "operation": self._operation(address),
        }
        if chance.random() < 0.01:
            del body["gas_price"]
        if chance.random() < 0.04:
            body["billing"] = f"{chance.choice(APPS[:3])}|b1"
        return self._task(address, body)

    def _task(self, address: str, body: dict[str, Any]) -> Task:
        digest = hashlib.sha256(f"{self.seed} {self.count}".encode()).hexdigest()
        return Task(f"0x{digest}", address, body)

    def _beginning(self, kind: str, path: str, value: Any) -> dict[str, Any]:
        """One of the transactions with which every world begins, so that there is something to write at."""
        if value == "app":
            value = {"admin": dict.fromkeys(self.people[:2], True), "is_public": True}
        operation = {"type": kind, "ref": path, "value": value}
        return {"nonce": -1, "timestamp": self.now_ms, "gas_price": 0, "operation": operation}

    # -- operations -------------------------------------------------------------------------------------------------

    def _operation(self, address: str) -> dict[str, Any]:
        chance = self.random
        if chance.random() < 0.25:
            count = chance.choice((1, 2, 2, 3, 4, 6))
            if self.is_own and chance.random() < 0.01:
                count = 51
            return {"type": "SET", "op_list": [self._single(address) for _ in range(count)]}
        return self._single(address)

    def _single(self, address: str) -> dict[str, Any]:
        chance = self.random
        makers: tuple[tuple[int, Callable[[str], dict[str, Any]]], ...] = (
            (5, self._transfer),
            (2, self._new_app),
            (7, self._app_value),
            (2, self._app_number),
            (4, self._app_rule),
            (3, self._app_function),
            (3, self._app_owner),
            (1, self._app_config),
            (1, self._nonsense),
            (1, self._stake),
        )
        return chance.choices([maker for _, maker in makers], [weight for weight, _ in makers])[0](address)

    def _transfer(self, address: str) -> dict[str, Any]:
        chance = self.random
        target = chance.choice(
            (*self.people[:3] * 4, *self.people, "nobody", "billing|alpha|b1", "0xabc", "staking|x")
        )
        source = address if chance.random() < 0.95 else chance.choice(self.people)
        amount = chance.choice(
            (1, 1, 1, 0.5, 2.25, 0.000001, 1e-7, 0, -1, 10**7, 3, "1", None, {"x": 1}, True)
        )
        key = str(self.count if chance.random() < 0.9 else self.count - 1)
        if chance.random() < 0.5:
            source, target = address, self.people[1 if address == self.people[0] else 0]
        path = f"/transfer/{source}/{target}/{key}" + ("/value" if chance.random() < 0.97 else "")
        return {"type": "SET_VALUE", "ref": path, "value": amount}

    def _new_app(self, address: str) -> dict[str, Any]:
        chance = self.random
        admins: dict[str, Any] = {address: True}
        if chance.random() < 0.4:
            admins[chance.choice(self.people)] = chance.random() < 0.7
        app: dict[str, Any] = {"admin": admins}
        if chance.random() < 0.5:
            app["is_public"] = chance.random() < 0.8
        if chance.random() < 0.3:
            app["billing"] = {"b1": {"users": {address: True, chance.choice(self.people): True}}}
        if chance.random() < 0.2:
            app["service"] = {"staking": {"lockup_duration": chance.choice((0, 1000))}}
        if chance.random() < 0.1:
            app = chance.choice(
                ({"admin": {"x": True}}, {"admin": 1}, {"more": 1, "admin": admins}, {"is_public": True})
            )
        return {"ref": f"/manage_app/{chance.choice(APPS)}/create/{self.count}", "value": app}

    def _app_value(self, address: str) -> dict[str, Any]:
        value = self._value(self.random.choice((0, 0, 0, 1, 2, 3)))
        return {"type": "SET_VALUE", "ref": self._app_path(address), "value": value}

    def _app_number(self, address: str) -> dict[str, Any]:
        kind = self.random.choice(("INC_VALUE", "DEC_VALUE"))
        return {
            "type": kind,
            "ref": self._app_path(address),
            "value": self.random.choice((1, 2, 0.1, 1e9, -3)),
        }

    def _app_rule(self, address: str) -> dict[str, Any]:
        chance = self.random
        config: Any = {}
        if chance.random() < 0.8:
            config["write"] = chance.choice(
                (True, True, False, None, *self.texts, "foo === 1", "newData = 1", 5)
            )
        if chance.random() < 0.3:
            config["state"] = chance.choice(
                (
                    {"max_children": 2},
                    {"max_bytes": 30},
                    {"max_height": 1, "max_size": 3},
                    {"gc_max_siblings": 10, "gc_num_siblings_deleted": 10},
                    {"gc_max_siblings": 11, "gc_num_siblings_deleted": 10, "max_children": 4},
                    {"gc_max_siblings": 5, "gc_num_siblings_deleted": 3},
                    {"gc_num_siblings_deleted": 10},
                    {"max_children": 0},
                    {"max_sons": 1},
                    {},
                    None,
                )
            )
        tree = self._nested(".rule", config)
        if chance.random() < 0.1:
            shape = {"gc_max_siblings": 10, "gc_num_siblings_deleted": 10}
            place = f"/apps/{self._app(address)}/{chance.choice(('list', '1'))}/$k"
            return {"type": "SET_RULE", "ref": place, "value": {".rule": {"write": True, "state": shape}}}
        return {"type": "SET_RULE", "ref": self._app_path(address, has_variables=True), "value": tree}

    def _app_function(self, address: str) -> dict[str, Any]:
        chance = self.random
        config: dict[str, Any] = {}
        for _ in range(chance.choice((1, 1, 2))):
            name = chance.choice(
                ("_saveLastTx", "_eraseValue", "_fail", "_setOwnerConfig", "_nope", "_transfer", "7")
            )
            config[name] = chance.choice(
                ({"function_type": "NATIVE", "function_id": name},) * 4
                + (None, {"function_type": "NATIVE", "function_id": "x"}, {"function_type": "OTHER"})
            )
        if chance.random() < 0.1:
            url = "https://example.org/hook"
            config["hook"] = {"function_type": "REST", "function_id": "hook", "function_url": url}
        tree = self._nested(".function", config)
        return {"type": "SET_FUNCTION", "ref": self._app_path(address, has_variables=True), "value": tree}

    def _app_owner(self, address: str) -> dict[str, Any]:
        chance = self.random
        owners: dict[str, Any] = {}
        for _ in range(chance.choice((0, 1, 1, 2))):
            who = chance.choice(
                (address, address, *self.people, "*", "fid:_saveLastTx", "fid:_nope", "someone")
            )
            owners[who] = (
                None
                if chance.random() < 0.1
                else {
                    name: chance.random() < 0.8
                    for name in ("branch_owner", "write_function", "write_owner", "write_rule")[
                        : chance.choice((4,) * 9 + (3,))
                    ]
                }
            )
        return {
            "type": "SET_OWNER",
            "ref": self._app_path(address),
            "value": self._nested(".owner", {"owners": owners}),
        }

    def _app_config(self, address: str) -> dict[str, Any]:
        chance = self.random
        name, value = chance.choice(
            (
                ("admin", {address: True}),
                ("admin", {"x": True}),
                ("is_public", True),
                ("is_public", None),
                ("is_public", "yes"),
                ("billing", {"b1": {"users": {address: True}}}),
                ("billing", {"b1": {"owners": {address: True}}}),
                ("service", {"staking": {"lockup_duration": 5}}),
                ("service", {"staking": {"lockup_duration": -5}}),
            )
        )
        return {
            "type": "SET_VALUE",
            "ref": f"/manage_app/{chance.choice(APPS)}/config/{name}",
            "value": value,
        }

    def _stake(self, address: str) -> dict[str, Any]:
        chance = self.random
        path = f"/staking/{chance.choice(APPS[:3])}/{address}/0/stake/{self.count}/value"
        return {"type": "SET_VALUE", "ref": path, "value": chance.choice((0, 1, 5, 0.5, 10**9, None))}

    def _nonsense(self, address: str) -> dict[str, Any]:
        chance = self.random
        return chance.choice(
            (
                {"type": "NOPE"},
                {"type": "SET_VALUE", "ref": "/apps/a.b/c", "value": 1},
                {"type": "SET_RULE", "ref": "/apps/alpha/$x/$x", "value": {".rule": {"write": True}}},
                {"type": "SET_VALUE", "ref": "/apps/alpha/x"},
                {"type": "SET_VALUE", "value": 1},
                {"type": "SET_VALUE", "ref": "/", "value": None},
                {"type": "SET_VALUE", "ref": f"/accounts/{address}/balance", "value": 10**9},
                {"type": "INC_VALUE", "ref": f"/accounts/{address}/balance", "value": 1},
                {"type": "SET_VALUE", "ref": f"/accounts/{address}", "value": None},
                {"type": "SET_RULE", "ref": "/", "value": {".rule": {"write": True}}},
                {"type": "SET_OWNER", "ref": "/apps", "value": None},
                {
                    "type": "SET_VALUE",
                    "ref": "/apps/beta/" + "/".join("deep" * chance.choice((3, 3, 3, 7))),
                    "value": 1,
                },
                {"type": "SET_VALUE", "ref": "/apps/" + "long" * 40, "value": 1},
                {"type": "SET_VALUE", "ref": "/manage_app", "value": {"alpha": {"config": None}}},
            )
        )

    # -- pieces -----------------------------------------------------------------------------------------------------

    def _app(self, address: str) -> str:
        """An app, mostly one that this person may write."""
        chance = self.random
        app = chance.choice(APPS[:3])
        if chance.random() < 0.8:
            for other in (app, *APPS[:3]):
                if self.tree.get(["values", "manage_app", other, "config", "admin", address]) is True:
                    return other
        return app

    def _app_path(self, address: str, *, has_variables: bool = False) -> str:
        chance = self.random
        labels = [chance.choice(LABELS) for _ in range(chance.choice((0, 1, 1, 2, 2, 2, 3, 4)))]
        if has_variables:
            for position in range(len(labels)):
                if chance.random() < 0.3:
                    labels[position] = chance.choice(("$user", "$k", "$m"))
        elif chance.random() < 0.25:
            return f"/apps/alpha/list/{chance.randrange(100)}"
        elif labels and chance.random() < 0.15:
            labels[-1] = chance.choice(self.people)
        return "/" + "/".join(("apps", self._app(address), *labels))

    def _nested(self, kind: str, config: Any) -> Any:
        chance = self.random
        if chance.random() < 0.08:
            return None
        if chance.random() < 0.03:
            return chance.choice((5, {}, {kind: 3}, {"a": None}, {"a": 1}))
        tree: dict[str, Any] = {kind: config}
        if chance.random() < 0.15:
            tree[chance.choice(("a", "1", "$k"))] = {kind: config}
        if chance.random() < 0.1:
            tree = {chance.choice(("b", "2")): tree}
        return tree

    def _value(self, depth: int) -> Any:
        chance = self.random
        if depth == 0:
            return chance.choice(
                (None, True, False, 0, 1, 2, 0.1, -1.5, 1e300, "", "x", "ünï", "long " * 8, 3, "x", 7)
            )
        if chance.random() < 0.03:
            return chance.choice(
                ({}, {"a.b": 1}, {"": 1}, {"a": {}}, {"a": []}, [1], {"#x": 1}, {"#x": 1, "a": 2})
            )
        count = chance.choice((1, 1, 2, 3))
        return {chance.choice(LABELS): self._value(chance.randrange(depth)) for _ in range(count)}

    def _app_rules(self) -> dict[str, Rule]:
        """Rules by their text, and what each of them means."""
        first, second = self.people[0], self.people[1]
        return {
            f"auth.addr === '{first}'": lambda seen: seen.asker.address == first,
            f"auth.addr !== '{second}'": lambda seen: seen.asker.address != second,
            "util.isString(newData) && newData.length < 6": lambda seen: (
                isinstance(seen.new, str) and len(seen.new) < 6
            ),
            "newData === null || util.isNumber(newData)": lambda seen: (
                seen.new is None or is_number(seen.new)
            ),
            "data === null": lambda seen: seen.data is None,
            "util.isNumber(data) && util.isNumber(newData) && newData > data": lambda seen: (
                is_number(seen.data) and is_number(seen.new) and seen.new > seen.data
            ),
            "getValue('/apps/alpha/a') === true": lambda seen: seen.value("/apps/alpha/a") is True,
            "util.getBalance(auth.addr, getValue) >= 5": lambda seen: seen.balance(seen.asker.address) >= 5,
            "newData.x.y === 1": _member_of_member,
            "auth.addr ===": _no_rule,
            "util.isAppAdmin('alpha', auth.addr, getValue) === true": lambda seen: is_admin(seen, "alpha"),
            "auth.fid === '_saveLastTx' || auth.fid === '_eraseValue'": lambda seen: (
                seen.asker.native in ("_saveLastTx", "_eraseValue")
            ),
            "!util.isDict(newData) || util.length(newData) < 3": lambda seen: (
                not isinstance(seen.new, dict) or len(seen.new) < 3
            ),
            "blockNumber > 3 && currentTime > 5 && util.length(parsedValuePath) < 6": lambda seen: (
                seen.block > 3 and seen.time > 5 and len(seen.labels) < 6
            ),
            "lastBlock.x": _no_rule,
        }


class KnownRules(dict[str, Rule]):
    """Rules by their text; those that making an app writes are read as they come."""

    def __missing__(self, text: str) -> Rule:
        addresses = re.findall("auth.addr === '(0x[0-9a-fA-F]{40})'", text)
        assert text == " || ".join(f"auth.addr === '{address}'" for address in addresses), text
        return lambda seen: seen.asker.address in addresses


def _member_of_member(seen: Seen) -> bool:
    if not isinstance(seen.new, dict) or seen.new.get("x") is None:
        raise Throws
    inner = seen.new["x"]
    return isinstance(inner, dict) and is_number(inner.get("y")) and inner["y"] == 1


def _no_rule(seen: Seen) -> bool:
    raise NoRule


# -- chains -----------------------------------------------------------------------------------------------------------


def _own_chain(people: list[str]) -> tuple[Machine, Tree]:
    tree = Tree("canonical")
    amounts = (10_000_000, 500, 20_000_000_000, 0, 3_000_000)
    accounts = {person: amount for person, amount in zip(people, amounts, strict=False) if amount}
    producer = PrivateKey(hashlib.sha256(b"producer").digest()).address
    accounts[producer] = TOTAL_SUPPLY_UAIN - sum(accounts.values())
    document = {
        "network": "local",
        "chain_id": 100,
        "timestamp_ms": OWN_START_MS,
        "producer": producer,
        "accounts": accounts,
    }
    return protocol.begin(document, tree), tree


def _ain_chain() -> tuple[Machine, Tree]:
    config = json.loads((VECTORS / "configs.json").read_text())["1-node"]
    bandages = json.loads((VECTORS / "bandages.json").read_text())
    block = json.loads((VECTORS / "1-node.genesis_block.json").read_text())
    network = protocol.ain_network("1-node", config, bandages)
    tree = Tree("ain")
    write_blank_state(tree)
    executor = Executor(network, State(tree), NetworkDomain(network.chain_id, block["hash"]))
    for wire in block["transactions"]:
        time_ms = block["timestamp"]
        executor.execute(trusted_transaction(wire), 0, time_ms, time_ms, skip_fees=True, restore=False)
    machine = Machine(network, tree, block, block["hash"])
    for offset in range(2):
        # The first block turns the changes of the protocol on.
        machine.open_block(AIN_START_MS + offset, block["proposer"])
        machine.seal()
    return machine, tree
